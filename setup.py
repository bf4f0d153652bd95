"""What the build cannot say in pyproject.toml: a checkout must be whole, and the package's page has no relative links.

plugin/hope_ssm/ links to configs/, registry.yaml and upstream/. Where git makes no links (core.symlinks=false,
which is the default on Windows), it leaves small text files in their place, and a wheel would be built without configs.
"""

import re
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
PACKAGE = ROOT / "plugin" / "hope_ssm"

for linked in ("configs", "registry.yaml", "upstream"):
    path = PACKAGE / linked
    if not path.exists() or (path.is_file() and path.read_text(encoding="utf-8").startswith("../")):
        raise SystemExit(
            f"plugin/hope_ssm/{linked} must be there, through a symbolic link of the checkout; got none. "
            "Run 'git config core.symlinks true', then 'git checkout -- plugin/hope_ssm', where links are allowed; "
            "or build from the source distribution, which has the files themselves."
        )
readme = (ROOT / "README.md").read_text(encoding="utf-8")
readme = re.sub(r"!\[[^\]]*\]\((?!https?:)[^)]*\)\n*", "", readme)  # pictures
readme = re.sub(r"\[([^\]]*)\]\((?!https?:)[^)]*\)", r"\1", readme)
setup(long_description=readme, long_description_content_type="text/markdown")
