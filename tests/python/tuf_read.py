"""Downloads one target of a TUF repository with python-tuf and prints its bytes.

usage: tuf_read.py ROOT_FILE REPOSITORY_URL TARGET_PATH

The repository has `metadata/` and `targets/` below its URL. Exit status 1 with the reason when the target is not
trusted.
"""

import sys
import tempfile
from pathlib import Path

from tuf.ngclient import Updater


def main() -> None:
    """Refreshes from the root given and reads the target."""
    root, url, path = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        updater = Updater(
            metadata_dir=folder,
            metadata_base_url=f"{url}/metadata/",
            target_dir=folder,
            target_base_url=f"{url}/targets/",
            bootstrap=Path(root).read_bytes(),
        )
        updater.refresh()
        target = updater.get_targetinfo(path)
        if target is None:
            sys.exit(f"nobody lists {path}")
        sys.stdout.buffer.write(Path(updater.download_target(target, str(Path(folder) / "target"))).read_bytes())


if __name__ == "__main__":
    main()
