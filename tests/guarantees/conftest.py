"""What the tests of the guarantees share: the modes that give them, and which options the library knows."""
import re
import subprocess

import pytest


def shared(config):
    """The conftest.py of all program tests."""
    return next(p for p in config.pluginmanager.get_plugins() if hasattr(p, "run_program"))


@pytest.fixture(params=["hardened", "strict"])
def mode(request, pytestconfig):
    return shared(pytestconfig).Alloc(request.param)


@pytest.fixture(scope="session")
def hardened(pytestconfig):
    return shared(pytestconfig).Alloc("hardened")


@pytest.fixture(scope="session")
def strict(pytestconfig):
    return shared(pytestconfig).Alloc("strict")


@pytest.fixture(scope="session")
def known_options(run, hardened):
    """Names of all options, as help=1 lists them."""
    done = run(["/bin/true"], hardened, options="help=1")
    return set(re.findall(r"^ *([a-z_]+)=", done.err, re.M))


@pytest.fixture(scope="session")
def unsampled(known_options):
    """Options under which a test of what is *not* caught sees the same every time."""
    return "sample=0" if "sample" in known_options else ""


@pytest.fixture(scope="session")
def classes(pytestconfig):
    """(bytes per slot, bytes per span, slots) of every size class, from the generated table."""
    text = (shared(pytestconfig).ROOT / "src" / "sizeclasses.h").read_text()
    rows = re.findall(r"^ \* +(\d+) +(\d+) +(\d+) +(\d+) +(\d+) +\d+ +[\d.]+% ", text, re.M)
    assert len(rows) > 50, "the table's format has changed"
    return [(int(elem), int(span), int(slots)) for _, elem, span, _, slots in rows]


@pytest.fixture(scope="session")
def page_bytes():
    return int(subprocess.run(["getconf", "PAGESIZE"], capture_output=True, text=True, check=True).stdout)
