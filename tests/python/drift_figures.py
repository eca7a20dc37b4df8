"""Rows per second and bytes per feature of datasketches (KLL, k = 200) and whylogs, on rows of float32 in a file.

Usage: drift_figures.py FILE BATCH SECONDS FEATURE...
"""

import json
import sys
import time

import numpy
import pandas
import whylogs
from datasketches import kll_floats_sketch

file, batch, seconds, features = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4:]
rows = numpy.fromfile(file, dtype="<f4").reshape(-1, len(features))


ROUNDS = 5
"""The best of so many counts: whatever else the machine does only ever slows it down."""


def rate(step, pieces, rows_each):
    """Rows per second of `step` over `pieces`, again and again."""
    step(pieces[0])
    return max(count(step, pieces, rows_each, seconds / ROUNDS) for _ in range(ROUNDS))


def count(step, pieces, rows_each, seconds):
    begin, done = time.perf_counter(), 0
    while True:
        for piece in pieces:
            step(piece)
            done += rows_each
            elapsed = time.perf_counter() - begin
            if elapsed > seconds:
                return done / elapsed


def kll():
    sketches = [kll_floats_sketch(200) for _ in features]

    def update(block):
        for sketch, column in zip(sketches, block.T):
            sketch.update(numpy.ascontiguousarray(column))

    def update_row(row):
        for sketch, value in zip(sketches, row):
            sketch.update(value)

    blocks = [rows[at : at + batch] for at in range(0, len(rows) - batch + 1, batch)]
    fast = rate(update, blocks, batch)
    single = rate(update_row, rows[:5000].tolist(), 1)
    sketches = [kll_floats_sketch(200) for _ in features]
    update(rows)
    size = sum(len(sketch.serialize()) for sketch in sketches) / len(features)
    return {"who": "datasketches KLL, k = 200", "batch": fast, "single": single, "bytes": size}


def why():
    frames = [
        pandas.DataFrame(rows[at : at + batch], columns=features) for at in range(0, len(rows) - batch + 1, batch)
    ]
    results = whylogs.log(frames[0])
    profile = results.profile()
    fast = rate(profile.track, frames, batch)
    single = rate(profile.track, [dict(zip(features, row)) for row in rows[:5000].tolist()], 1)
    whole = whylogs.log(pandas.DataFrame(rows, columns=features)).view()
    return {"who": "whylogs", "batch": fast, "single": single, "bytes": len(whole.serialize()) / len(features)}


print(json.dumps([kll(), why()]))
