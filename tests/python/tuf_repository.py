"""Writes TUF repositories with python-tuf, for our client to read.

usage: tuf_repository.py FOLDER

FOLDER/valid: consistent snapshots; root 1 to 4 with the root and timestamp keys rotated between ECDSA P-256 and
Ed25519; `digits` speaks for models/digits/*, `vision` (2 of 3 keys) for models/vision-?/* and hands models/vision-2/*
to `lab`; hashes and lengths everywhere. FOLDER/expired: the same with a timestamp that expired yesterday.
Each has `initial_root.json`, `metadata/` and `targets/`.
"""

import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

NOW = datetime.now(timezone.utc).replace(microsecond=0)
LATER = NOW + timedelta(days=30)


def signed(content, signers) -> bytes:
    """The file of `content`, signed by each of `signers`."""
    metadata = Metadata(content)
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata.to_bytes()


def described(version: int, data: bytes) -> MetaFile:
    """What snapshot and timestamp say about a file."""
    return MetaFile.from_data(version, data, ["sha256", "sha512"])


def write_roots(metadata: Path, keys: dict[str, CryptoSigner]) -> None:
    """Roots 1 to 4; the keys end as `keys` says."""
    first_root, first_timestamp = CryptoSigner.generate_ecdsa(), CryptoSigner.generate_ecdsa()
    root = Root(expires=NOW - timedelta(days=1), consistent_snapshot=True)
    for role, signer in {**keys, "root": first_root, "timestamp": first_timestamp}.items():
        root.add_key(signer.public_key, role)
    (metadata / "1.root.json").write_bytes(signed(root, [first_root]))
    root.version = 2
    root.revoke_key(first_timestamp.public_key.keyid, "timestamp")
    root.add_key(keys["timestamp"].public_key, "timestamp")
    (metadata / "2.root.json").write_bytes(signed(root, [first_root]))
    root.version = 3
    root.revoke_key(first_root.public_key.keyid, "root")
    root.add_key(keys["root"].public_key, "root")
    (metadata / "3.root.json").write_bytes(signed(root, [first_root, keys["root"]]))
    root.version = 4
    root.expires = LATER
    root.unrecognized_fields["note"] = 'unknown fields are signed too: "é\\'
    (metadata / "4.root.json").write_bytes(signed(root, [keys["root"]]))


def write_target(folder: Path, path: str, content: bytes, into: Targets) -> None:
    """Stores a target under its hash and lists it."""
    target = TargetFile.from_data(path, content, ["sha256"])
    into.targets[path] = target
    file = folder / "targets" / Path(path).parent / f"{target.hashes['sha256']}.{Path(path).name}"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def write_repository(folder: Path, timestamp_expires: datetime) -> None:
    """One whole repository."""
    metadata = folder / "metadata"
    metadata.mkdir(parents=True)
    keys = {
        "root": CryptoSigner.generate_ed25519(),
        "timestamp": CryptoSigner.generate_ed25519(),
        "snapshot": CryptoSigner.generate_ecdsa(),
        "targets": CryptoSigner.generate_ecdsa(),
    }
    write_roots(metadata, keys)
    (folder / "initial_root.json").write_bytes((metadata / "1.root.json").read_bytes())

    digits, lab = CryptoSigner.generate_ed25519(), CryptoSigner.generate_ed25519()
    vision = [CryptoSigner.generate_ecdsa(), CryptoSigner.generate_ed25519(), CryptoSigner.generate_ed25519()]
    roles: dict[str, tuple[Targets, list[CryptoSigner]]] = {
        "targets": (Targets(expires=LATER, version=3), [keys["targets"]]),
        "digits": (Targets(expires=LATER, version=7), [digits]),
        "vision": (Targets(expires=LATER), vision[:2]),
        "lab": (Targets(expires=LATER), [lab]),
    }
    top, middle = roles["targets"][0], roles["vision"][0]
    top.delegations = Delegations({}, roles={})
    top.delegations.roles["digits"] = DelegatedRole("digits", [], 1, True, ["models/digits/*"])
    top.delegations.roles["vision"] = DelegatedRole("vision", [], 2, False, ["models/vision-?/*"])
    top.add_key(digits.public_key, "digits")
    for signer in vision:
        top.add_key(signer.public_key, "vision")
    middle.delegations = Delegations({}, roles={})
    middle.delegations.roles["lab"] = DelegatedRole("lab", [], 1, True, ["models/vision-2/*"])
    middle.add_key(lab.public_key, "lab")
    write_target(folder, "models/digits/1.0.0.release", b"digits 1.0.0", roles["digits"][0])
    write_target(folder, "models/vision-1/1.0.0.release", b"vision 1.0.0", roles["vision"][0])
    write_target(folder, "models/vision-2/2.0.0.release", b"lab 2.0.0", roles["lab"][0])
    write_target(folder, "models/digits/stolen", b"not theirs", roles["lab"][0])

    snapshot = Snapshot(expires=LATER, version=9, meta={})
    for name, (content, signers) in roles.items():
        data = signed(content, signers)
        (metadata / f"{content.version}.{name}.json").write_bytes(data)
        snapshot.meta[f"{name}.json"] = described(content.version, data)
    data = signed(snapshot, [keys["snapshot"]])
    (metadata / "9.snapshot.json").write_bytes(data)
    timestamp = Timestamp(expires=timestamp_expires, version=12, snapshot_meta=described(9, data))
    (metadata / "timestamp.json").write_bytes(signed(timestamp, [keys["timestamp"]]))


def main() -> None:
    """Both repositories."""
    folder = Path(sys.argv[1])
    write_repository(folder / "valid", LATER)
    write_repository(folder / "expired", NOW - timedelta(days=1))


if __name__ == "__main__":
    main()
