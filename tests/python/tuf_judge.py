"""Judges a TUF client by its command line: python-tuf signs repositories with ECDSA P-256 keys, a server here
hands them out and notes what was asked for, and after each step the client's exit code, its trusted files and
the order of its requests must be right. Usage: tuf_judge.py CLIENT"""

import copy
import datetime
import http.server
import json
import subprocess
import sys
import tempfile
import threading
import urllib.parse
from pathlib import Path

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole, Delegations, Metadata, MetaFile, Root, Snapshot, SuccinctRoles, TargetFile, Targets, Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
LATER = NOW + datetime.timedelta(days=30)
KEYS = [CryptoSigner.generate_ecdsa() for _ in range(14)]
TOP = ["root", "timestamp", "snapshot", "targets"]


class Repository:
    """Metadata by role, its signed versions as they were published, and who signs."""

    def __init__(self, hashes=False):
        self.hashes = hashes
        self.content = {
            "root": Root(expires=LATER), "timestamp": Timestamp(expires=LATER),
            "snapshot": Snapshot(expires=LATER), "targets": Targets(expires=LATER),
        }
        self.signers = {role: [KEYS[index]] for index, role in enumerate(TOP)}
        for role in TOP:
            self.root.add_key(self.signers[role][0].public_key, role)
        self.said, self.asked, self.artifacts = {}, [], {}
        self.publish("targets", "snapshot", "timestamp", "root")

    root = property(lambda self: self.content["root"])
    targets = property(lambda self: self.content["targets"])

    def publish(self, *roles):
        """Signs each role as its next version; what lists it is told."""
        for role in roles:
            content = self.content[role]
            if role in self.said:
                content.version += 1
            file = Metadata(content)
            for signer in self.signers[role]:
                file.sign(signer, append=True)
            data = file.to_bytes(JSONSerializer(compact=False))
            self.said.setdefault(role, {})[content.version] = data
            listed = MetaFile(content.version)
            if self.hashes:
                listed = MetaFile.from_data(content.version, data, ["sha256"])
            if role == "snapshot":
                self.content["timestamp"].snapshot_meta = listed
            elif role not in TOP or role == "targets":
                self.content["snapshot"].meta[f"{role}.json"] = listed

    def delegate(self, by, name, paths=("*",), terminating=False, seed=9):
        delegations = self.content[by].delegations
        if delegations is None:
            delegations = self.content[by].delegations = Delegations({}, roles={})
        delegations.roles[name] = DelegatedRole(name, [], 1, terminating, list(paths))
        self.content[by].add_key(KEYS[seed].public_key, name)
        self.signers[name] = [KEYS[seed]]
        self.content.setdefault(name, Targets(expires=LATER))

    def add(self, role, path, data):
        self.content[role].targets[path] = TargetFile.from_data(path, data, ["sha256"])
        self.artifacts[path] = data

    def rotate(self, role, keys, threshold=1, signed_by=None):
        self.root.roles[role].keyids.clear()
        self.root.roles[role].threshold = threshold
        for index in keys:
            self.root.add_key(KEYS[index].public_key, role)
        self.signers[role] = [KEYS[index] for index in (keys if signed_by is None else signed_by)]

    def get(self, path):
        folder, _, name = path.partition("/")
        if folder == "metadata" and name.endswith(".json"):
            name = name.removesuffix(".json")
            version, _, role = name.partition(".")
            if name == "timestamp":
                version, role = None, name
            self.asked.append((role, int(version) if version else None))
            versions = self.said.get(urllib.parse.unquote(role), {})
            return versions.get(int(version)) if version else list(versions.values())[-1]
        folders, _, last = urllib.parse.unquote(name).rpartition("/")
        return self.artifacts.get(f"{folders}/{last.partition('.')[2]}".lstrip("/"))


class Server(http.server.ThreadingHTTPServer):
    repository = None

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            data = self.server.repository.get(self.path.lstrip("/"))
            if data is None:
                return self.send_error(404)
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    def __init__(self):
        super().__init__(("127.0.0.1", 0), self.Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Client:
    """A client that trusts the repository's first root."""

    def __init__(self, repository, root=None):
        self.folder = Path(tempfile.mkdtemp())
        SERVER.repository = repository
        for name in ("metadata", "targets"):
            (self.folder / name).mkdir()
        first = self.folder / "first.json"
        first.write_bytes(root or repository.said["root"][1])
        self.started = self.run("init", str(first))
        repository.asked.clear()

    def run(self, *words, at=None, options=()):
        url = f"http://127.0.0.1:{SERVER.server_address[1]}"
        command = [PROGRAM, "--metadata-dir", self.folder / "metadata", "--metadata-url", f"{url}/metadata/", *options]
        if at is not None:
            command = ["faketime", str(at), *command]
        return subprocess.run([*map(str, command), *words], capture_output=True, timeout=60).returncode

    def refresh(self, at=None):
        return self.run("refresh", at=at)

    def download(self, *paths):
        url = f"http://127.0.0.1:{SERVER.server_address[1]}/targets/"
        names = [word for path in paths for word in ("--target-name", path)]
        options = [*names, "--target-base-url", url, "--target-dir", self.folder / "targets"]
        return self.run("download", options=options)

    def has(self, role):
        path = self.folder / "metadata" / f"{role}.json"
        return Metadata.from_file(str(path)).signed.version if path.exists() else None

    def bytes(self, role):
        return (self.folder / "metadata" / f"{role}.json").read_bytes()

    def got(self):
        files = (self.folder / "targets").rglob("*")
        return sorted(file.read_bytes() for file in files if file.is_file())


def equal(found, expected):
    if found != expected:
        raise AssertionError(f"{found!r} instead of {expected!r}")


def a_first_refresh_asks_in_order_and_keeps_the_very_bytes():
    repository = Repository()
    client = Client(repository)
    equal(client.started, 0)
    equal(client.refresh(), 0)
    equal(repository.asked, [("root", 2), ("timestamp", None), ("snapshot", 1), ("targets", 1)])
    for role in TOP:
        equal(client.bytes(role), repository.said[role][1])
    repository.asked.clear()
    equal(client.refresh(), 0)
    equal(repository.asked, [("root", 2), ("timestamp", None)])


def a_root_that_is_none_starts_nothing():
    for change in (lambda root: root.replace(b'"version": 1', b'"version": 2'), lambda root: b"{}"):
        repository = Repository()
        client = Client(repository, change(repository.said["root"][1]))
        equal(client.refresh(), 1)
        equal(repository.asked, [])


def roots_need_the_old_threshold_and_their_own():
    chains = [
        ([(([1], 1, [1])), ([2], 1, [2, 1]), ([2], 1, [2])], True),
        ([([1], 1, [3, 1, 4]), ([2], 1, [3, 2, 1, 4]), ([2], 1, [3, 2])], True),
        ([([0, 1, 2, 3, 4], 3, [0, 2, 4]), ([0, 1, 3, 4, 5], 3, [0, 4, 1])], True),
        ([([0, 1, 2, 3, 4], 3, [0, 2, 4]), ([5, 6, 7, 8, 9], 3, [0, 2, 4, 5, 6, 7]), ([5, 6, 7, 8, 9], 3, [5, 6, 7])], True),
        ([([1, 2, 3], 1, [1]), ([1, 2, 3], 2, [1, 2])], True),
        ([([1], 1, [1]), ([2], 1, [2, 3])], False),
        ([([1], 1, [1]), ([2], 1, [1, 3])], False),
        ([([0, 1, 2, 3, 4], 3, [0, 2, 4]), ([0, 1, 3, 4, 5], 3, [0, 2, 4])], False),
        ([([0, 1, 2, 3, 4], 3, [0, 2, 4]), ([0, 1, 3, 4, 5], 3, [0, 4, 5])], False),
        ([([1, 2, 3], 1, [1]), ([1, 2, 3], 2, [2])], False),
    ]
    for chain, good in chains:
        repository = Repository()
        repository.said.pop("root")
        repository.root.version = 1
        for keys, threshold, signed_by in chain:
            repository.rotate("root", keys, threshold, signed_by)
            repository.publish("root")
        client = Client(repository)
        equal(client.refresh(), 0 if good else 1)
        equal(client.has("root"), len(chain) if good else len(chain) - 1)


def the_other_roles_need_their_threshold():
    for keys, threshold, signed_by, good in [
        ([2], 1, [2], True), ([1], 1, [3, 1, 4], True), ([0, 1, 2, 3, 4], 3, [2, 3, 4], True),
        ([2], 1, [1, 3], False), ([0, 1, 3, 4, 5], 3, [0, 2, 4], False), ([0, 1, 3], 3, [0, 1], False),
    ]:
        for role in ("timestamp", "snapshot", "targets"):
            repository = Repository()
            client = Client(repository)
            repository.rotate(role, keys, threshold, signed_by)
            repository.publish("targets", "snapshot", "timestamp", "root")
            equal(client.refresh(), 0 if good else 1)
            if good:
                equal(client.bytes(role), repository.said[role][2])


def one_key_under_many_names_counts_once():
    repository = Repository()
    client = Client(repository)
    equal(client.refresh(), 0)
    for number in range(5):
        alias = copy.deepcopy(KEYS[2].public_key)
        alias.keyid = f"{number:064x}"
        repository.root.add_key(alias, "snapshot")
        repository.signers["snapshot"].append(CryptoSigner(KEYS[2]._private_key, alias))
    repository.root.roles["snapshot"].threshold = 3
    repository.publish("root", "snapshot", "timestamp")
    equal(client.refresh(), 1)
    equal((client.has("root"), client.has("snapshot")), (2, 1))


def unknown_fields_are_signed_and_kept():
    repository = Repository()
    client = Client(repository)
    repository.root.unrecognized_fields["custom"] = {"b": 1, "a": [True, None]}
    repository.root.keys[KEYS[0].public_key.keyid].unrecognized_fields["keyid_hash_algorithms"] = ["md5"]
    repository.publish("root")
    equal(client.refresh(), 0)
    equal(client.bytes("root"), repository.said["root"][2])


def nothing_goes_back():
    for hashes in (False, True):
        repository = Repository(hashes)
        client = Client(repository)
        repository.publish("targets", "targets", "snapshot", "timestamp")
        equal(client.refresh(), 0)
        before = {role: client.bytes(role) for role in TOP}
        # The snapshot's number falls.
        repository.content["snapshot"].version = 0
        repository.publish("snapshot", "timestamp")
        equal(client.refresh(), 1)
        equal({role: client.bytes(role) for role in TOP}, before)
        # The targets' number falls.
        repository.content["snapshot"].version = 2
        repository.targets.version = 0
        repository.publish("targets", "snapshot", "timestamp")
        equal(client.refresh(), 1)
        equal((client.has("snapshot"), client.has("targets")), (2, 3))
        # The timestamp's number falls.
        repository.content["timestamp"].version = 0
        repository.publish("timestamp")
        equal(client.refresh(), 1)


def a_timestamp_of_the_same_number_says_nothing_new():
    repository = Repository()
    client = Client(repository)
    equal(client.refresh(), 0)
    repository.content["timestamp"].snapshot_meta.version = 100
    repository.content["timestamp"].version = 0
    repository.publish("timestamp")
    equal(client.refresh(), 0)
    equal(client.bytes("timestamp") != repository.said["timestamp"][1], True)


def fast_forward_ends_with_the_key():
    for role, rotated in [("timestamp", ["timestamp"]), ("snapshot", ["timestamp", "snapshot"]), ("targets", ["snapshot"])]:
        repository = Repository()
        client = Client(repository)
        repository.content[role].version = 99_998
        repository.publish(*[name for name in ("targets", "snapshot", "timestamp")])
        equal(client.refresh(), 0)
        equal(client.has(role), 99_999)
        for index, name in enumerate(rotated):
            repository.rotate(name, [10 + index])
        repository.content[role].version = 1
        repository.publish("root", "targets", "snapshot", "timestamp")
        equal(client.refresh(), 0)
        equal(client.has(role), 2)


def what_has_expired_is_not_taken():
    past = NOW - datetime.timedelta(days=1)
    for role, kept in [("root", 2), ("timestamp", 1), ("snapshot", 1), ("targets", 1)]:
        repository = Repository()
        client = Client(repository)
        equal(client.refresh(), 0)
        repository.content[role].expires = past
        repository.publish("targets", "snapshot", "timestamp", "root")
        equal(client.refresh(), 1)
        equal(client.has(role), kept)


def what_has_expired_here_is_still_a_floor():
    repository = Repository()
    repository.content["timestamp"].expires = NOW + datetime.timedelta(days=7)
    repository.publish("timestamp")
    client = Client(repository)
    equal(client.refresh(), 0)
    repository.content["timestamp"].expires = NOW + datetime.timedelta(days=21)
    repository.publish("targets", "snapshot", "timestamp")
    equal(client.refresh(at=NOW + datetime.timedelta(days=18)), 0)
    equal([client.has(role) for role in TOP[1:]], [3, 2, 2])
    equal(client.refresh(at=NOW + datetime.timedelta(days=22)), 1)


def files_that_do_not_belong_together_are_refused():
    repository = Repository(hashes=True)
    client = Client(repository)
    equal(client.refresh(), 0)
    repository.publish("targets", "snapshot", "timestamp")
    repository.said["targets"][2] = repository.said["targets"][1]
    equal(client.refresh(), 1)
    equal(client.has("targets"), 1)


def delegations_are_walked_in_preorder():
    def walk(*edges, target="nowhere"):
        repository = Repository()
        for by, name, *more in edges:
            paths, terminating = (more + [("*",), False][len(more):])
            repository.delegate(by, name, paths, terminating)
        names = [name for _, name, *_ in edges]
        client = Client(repository)
        repository.publish(*dict.fromkeys(names), "targets", "snapshot", "timestamp")
        equal(client.download(target), 1)
        return "".join(role for role, _ in repository.asked[4:])

    equal(walk(("targets", "A"), ("targets", "B"), ("A", "C"), ("A", "D")), "ACDB")
    equal(walk(("targets", "A"), ("targets", "B"), ("A", "C", ("*",), True), ("A", "D"), ("C", "E")), "ACE")
    equal(walk(("targets", "A", ("*.py",)), ("targets", "B"), ("A", "C")), "B")
    equal(walk(("targets", "A"), ("targets", "B"), ("B", "C"), ("C", "D"), ("D", "B")), "ABCD")
    equal(walk(("targets", "A"), ("targets", "B"), ("B", "C"), ("A", "C")), "ACB")
    equal(walk(("targets", "A", ("rel/*/*",)), ("A", "C", ("rel/x/*",)), ("A", "D", ("rel/y/*.zip",)), target="rel/y/a.zip"), "AD")
    equal(walk(("targets", "A", ("rel/*",)), target="rel/y/a.zip"), "")


def names_stay_in_their_place():
    for name in ("?", "#", "/role", "../role", "a b", "1.a", "ü"):
        repository = Repository()
        client = Client(repository)
        repository.delegate("targets", name)
        repository.publish(name, "targets", "snapshot", "timestamp")
        equal(client.download("nowhere"), 1)
        equal(repository.asked[-1], (urllib.parse.quote(name, ""), 1))
        equal(len(list((client.folder / "metadata").iterdir())), 5)
        equal(sorted(path.name for path in client.folder.iterdir()), ["first.json", "metadata", "targets"])


def bins_are_found_by_hash():
    repository = Repository()
    bins = SuccinctRoles([], 1, 4, "bin")
    repository.targets.delegations = Delegations({}, None, bins)
    repository.targets.add_key(KEYS[9].public_key)
    for name in bins.get_roles():
        repository.content[name], repository.signers[name] = Targets(expires=LATER), [KEYS[9]]
    path = "some/file.bin"
    owner = bins.get_role_for_target(path)
    repository.add(owner, path, b"in a bin")
    client = Client(repository)
    repository.publish(*bins.get_roles(), "targets", "snapshot", "timestamp")
    equal(client.download(path), 0)
    equal(client.got(), [b"in a bin"])
    equal(repository.asked[4:], [(owner, 1)])


def what_is_downloaded_is_what_was_listed():
    repository = Repository()
    repository.add("targets", "file.txt", b"one")
    repository.add("targets", "path/to/file.txt", b"two")
    client = Client(repository)
    repository.publish("targets", "snapshot", "timestamp")
    equal(client.refresh(), 0)
    equal(client.got(), [])
    equal(client.download("file.txt"), 0)
    equal(client.got(), [b"one"])
    repository.artifacts = {path: b"malice" for path in repository.artifacts}
    client.download("file.txt")
    equal(client.download("path/to/file.txt"), 1)
    equal(client.got(), [b"one"])
    repository.add("targets", "file.txt", b"three")
    repository.add("targets", "path/to/file.txt", b"two")
    repository.publish("targets", "snapshot", "timestamp")
    equal(client.download("file.txt", "path/to/file.txt"), 0)
    equal(client.got(), [b"three", b"two"])


def a_file_that_is_not_signed_leaves_the_ones_before_it():
    kept = {"root": [1, None, None, None], "timestamp": [2, None, None, None],
            "snapshot": [2, 2, None, None], "targets": [2, 2, 2, None]}
    for role, versions in kept.items():
        repository = Repository()
        client = Client(repository)
        repository.signers[role] = [KEYS[13]]
        repository.publish("targets", "snapshot", "timestamp", "root")
        equal(client.refresh(), 1)
        equal([client.has(name) for name in TOP], versions)


def a_file_under_another_number_or_of_another_kind_is_refused():
    for role, versions in {"root": [1, None, None, None], "snapshot": [2, 2, None, None], "targets": [2, 2, 2, None]}.items():
        repository = Repository()
        client = Client(repository)
        repository.publish("targets", "snapshot", "timestamp", "root")
        repository.content[role].version = 2
        listed = copy.deepcopy((repository.content["snapshot"].meta, repository.content["timestamp"].snapshot_meta))
        repository.publish(role)
        repository.content["snapshot"].meta, repository.content["timestamp"].snapshot_meta = listed
        repository.said[role][2] = repository.said[role].pop(3)
        equal(client.refresh(), 1)
        equal([client.has(name) for name in TOP], versions)
    # A snapshot, signed by the timestamp's key too, in the timestamp's place.
    repository = Repository()
    client = Client(repository)
    repository.root.add_key(KEYS[1].public_key, "snapshot")
    repository.signers["snapshot"].append(KEYS[1])
    repository.content["snapshot"].meta = {"snapshot.json": MetaFile(1)}
    repository.publish("root", "snapshot")
    repository.said["timestamp"][2] = repository.said["snapshot"].pop(2)
    equal(client.refresh(), 1)
    equal([client.has(name) for name in TOP], [2, None, None, None])


def what_is_not_there_is_missed():
    for role, versions in {"timestamp": [1, 1, 1, 1], "snapshot": [1, 2, 1, 1], "targets": [1, 2, 2, 1]}.items():
        repository = Repository()
        client = Client(repository)
        equal(client.refresh(), 0)
        repository.publish("targets", "snapshot", "timestamp")
        if role == "timestamp":
            repository.said["timestamp"] = {1: None}
        else:
            repository.said[role].pop(2)
        equal(client.refresh(), 1)
        equal(repository.asked[-1], (role, None if role == "timestamp" else 2))
        equal([client.has(name) for name in TOP], versions)


def signatures_count_once_and_bad_ones_do_no_harm():
    def bend(change):
        repository = Repository()
        client = Client(repository)
        repository.root.add_key(KEYS[10].public_key, "timestamp")
        repository.signers["timestamp"].append(KEYS[10])
        repository.publish("root", "timestamp")
        file = json.loads(repository.said["timestamp"][2])
        change(file["signatures"])
        repository.said["timestamp"][2] = json.dumps(file).encode() + b" "
        outcome = client.refresh()
        if outcome == 0:
            equal(client.bytes("timestamp"), repository.said["timestamp"][2])
        return outcome

    equal(bend(lambda signatures: None), 0)
    equal(bend(lambda signatures: signatures[0].update(sig="")), 0)
    equal(bend(lambda signatures: signatures[0].update(sig=signatures[1]["sig"])), 0)
    equal(bend(lambda signatures: signatures[1].update(keyid="0" * 64)), 0)
    equal(bend(lambda signatures: signatures.append(signatures[0])), 1)
    equal(bend(lambda signatures: signatures.clear()), 1)


def a_role_does_not_disappear_but_with_the_snapshots_key():
    repository = Repository()
    repository.delegate("targets", "delegated")
    client = Client(repository)
    repository.publish("delegated", "targets", "snapshot", "timestamp")
    equal(client.refresh(), 0)
    del repository.content["snapshot"].meta["delegated.json"]
    repository.publish("snapshot", "timestamp")
    equal(client.refresh(), 1)
    equal(client.has("snapshot"), 2)
    repository.rotate("snapshot", [10])
    repository.publish("root", "snapshot", "timestamp")
    equal(client.refresh(), 0)


def delegates_expire_too():
    repository = Repository()
    repository.delegate("targets", "owner", ("files/*",))
    repository.add("owner", "files/a", b"a")
    client = Client(repository)
    repository.publish("owner", "targets", "snapshot", "timestamp")
    equal(client.download("files/a"), 0)
    repository.content["owner"].expires = NOW - datetime.timedelta(days=1)
    repository.publish("owner", "snapshot", "timestamp")
    equal(client.refresh(), 0)
    equal(client.download("files/a"), 1)
    equal(client.has("owner"), 1)


def every_hash_must_be_known_and_right():
    for algorithms, good in ((["sha256"], True), (["sha512"], True), (["sha256", "sha512"], True), (["md9"], False)):
        repository = Repository()
        data = b"content"
        target = TargetFile.from_data("file", data, algorithms if good else ["sha512"])
        if not good:
            target.hashes = {"md9": target.hashes["sha512"]}
        repository.targets.targets["file"], repository.artifacts["file"] = target, data
        client = Client(repository)
        repository.publish("targets", "snapshot", "timestamp")
        equal(client.download("file"), 0 if good else 1)
        equal(client.got(), [data] if good else [])


def keys_of_the_standard_kinds_sign_roots():
    for signer in (CryptoSigner.generate_ecdsa(), CryptoSigner.generate_ed25519()):
        repository = Repository()
        client = Client(repository)
        repository.root.add_key(signer.public_key, "root")
        repository.root.roles["root"].threshold = 2
        repository.signers["root"].append(signer)
        repository.publish("root")
        equal(client.refresh(), 0)
        repository.publish("root")
        file = json.loads(repository.said["root"][3])
        bent = file["signatures"][-1]
        bent["sig"] = bent["sig"][:-2] + ("00" if bent["sig"][-2:] != "00" else "01")
        repository.said["root"][3] = json.dumps(file).encode()
        equal(client.refresh(), 1)
        equal(client.has("root"), 2)
    # A root may list keys that this client cannot use.
    repository = Repository()
    client = Client(repository)
    repository.root.add_key(CryptoSigner.generate_rsa().public_key, "root")
    repository.publish("root")
    equal(client.refresh(), 0)


CASES = [value for name, value in list(globals().items())
         if callable(value) and getattr(value, "__module__", "") == __name__ and "_" in name and name.islower()]

if __name__ == "__main__":
    PROGRAM, failed = sys.argv[1], 0
    SERVER = Server()
    for case in CASES:
        try:
            case()
            print("ok  ", case.__name__)
        except Exception as error:
            failed += 1
            print("FAIL", case.__name__, f"{type(error).__name__}: {error} (line {error.__traceback__.tb_next.tb_lineno})")
    print(f"{len(CASES) - failed} of {len(CASES)} cases")
    sys.exit(1 if failed else 0)
