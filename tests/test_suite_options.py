"""The suite's own options: a skip can be made a failure."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SKIPPING = {
    "test_inside.py": "import pytest\ndef test_it():\n    pytest.skip('no machine')\n",
    "test_mark.py": "import pytest\n@pytest.mark.skip(reason='no machine')\ndef test_it():\n    pass\n",
    "test_module.py": "import pytest\npytest.skip('no machine', allow_module_level=True)\n",
    "test_fixture.py": (
        "import pytest\n@pytest.fixture\ndef host():\n    pytest.skip('no machine')\ndef test_it(host):\n    pass\n"
    ),
}


@pytest.mark.slow
def test_error_for_skips(tmp_path):
    for name, source in SKIPPING.items():
        (tmp_path / name).write_text(source)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    environment["PYTHONPATH"] = os.pathsep.join(str(Path(__file__).parent / folder) for folder in (".", "helpers"))
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", "-p", "no:xdist"]
    plain, strict = (
        subprocess.run([*command, *flags, "."], cwd=tmp_path, env=environment, capture_output=True, text=True)
        for flags in ([], ["--error-for-skips", "--continue-on-collection-errors"])
    )
    assert plain.returncode == 0 or "no tests ran" in plain.stdout
    assert "4 skipped" in plain.stdout
    assert strict.returncode == 1
    assert "skipped" not in strict.stdout.splitlines()[-1]
    assert strict.stdout.count("no skips under --error-for-skips: ") >= len(SKIPPING)
