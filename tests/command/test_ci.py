"""spanguard report: SARIF, JUnit, GitHub annotations; manual pages; make install."""
import json
import os
import pathlib
import re
import subprocess
import xml.etree.ElementTree

import jsonschema
import pytest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent


@pytest.fixture(scope="module")
def saved(spanguard, bugs, shared_tmp):
    """Two places, one of them twice."""
    path = shared_tmp / f"ci-{os.getpid()}.jsonl"
    for _ in range(2):
        spanguard("--mode=debug", "--halt-on-error=0", f"--json={path}", bugs, "many-places")
    with open(path, "a", encoding="utf-8") as f:
        f.write("\n{\"schema\": \"somebody else's\"}\n")
    return path


# ---------------------------------------------------------------- formats

OFFICIAL = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "spanguard" / "sarif-2.1.0.json"


def check_sarif(log):
    """Against our own schema, which is stricter about the parts that are written."""
    jsonschema.Draft7Validator(json.loads((HERE / "sarif.schema.json").read_text())).validate(log)


def official_errors(log):
    schema = json.loads(OFFICIAL.read_text(encoding="utf-8-sig"))
    validator = jsonschema.validators.validator_for(schema)(schema, format_checker=jsonschema.FormatChecker())
    return [f"{list(e.absolute_path)}: {e.message}" for e in validator.iter_errors(log)]


@pytest.mark.skipif(not OFFICIAL.exists(), reason=f"ci/setup.sh got no {OFFICIAL}")
def test_sarif_by_the_official_schema(spanguard, saved, bugs, scratch):
    """Reports with and without access, changed bytes, block; a leak; none at all."""
    found = scratch / "found"
    found.write_bytes(saved.read_bytes())
    for mode, bug in (("strict", "use-after-free"), ("debug", "in-a-row"), ("guard", "overflow"), ("hardened", "global")):
        spanguard(f"--mode={mode}", f"--json={found}", bugs, bug)
    spanguard("--mode=debug", "--leak-check=1", "--halt-on-error=0", f"--json={found}", bugs, "lost-and-wrong")
    (scratch / "none").write_text("")
    for path in (found, scratch / "none"):
        log = json.loads(spanguard("report", path, "--to=sarif", "--root", HERE).clean())
        assert official_errors(log) == []
    assert log["runs"][0]["results"] == []
    log = json.loads(spanguard("report", found, "--to=sarif", "--root", HERE).clean())
    assert {r["ruleId"] for r in log["runs"][0]["results"]} >= {"SG-DF", "SG-IF2", "SG-UAF", "SG-OV2", "SG-OV", "SG-IF", "SG-LK"}
    log["runs"][0]["results"][0]["level"] = "grave"
    log["runs"][0]["results"][0]["extra"] = 1
    assert len(official_errors(log)) == 2

def test_sarif(spanguard, saved, line):
    log = json.loads(spanguard("report", saved, "--to", "sarif", "--root", HERE).clean())
    check_sarif(log)
    run = log["runs"][0]
    rules, results = run["tool"]["driver"]["rules"], run["results"]
    assert [r["ruleId"] for r in results] == ["SG-DF", "SG-IF2"]
    assert [r["occurrenceCount"] for r in results] == [2, 2]
    assert all(rules[r["ruleIndex"]]["id"] == r["ruleId"] for r in results)
    at = results[0]["locations"][0]["physicalLocation"]
    assert at["artifactLocation"] == {"uri": "bugs.c", "uriBaseId": "SRCROOT"}
    assert at["region"]["startLine"] == line("inlined free")
    assert run["originalUriBaseIds"]["SRCROOT"]["uri"] == f"file://{HERE}/"
    assert [s["message"]["text"] for s in results[0]["stacks"]] == \
        ["where it was found", "where it was freed", "where it was allocated"]
    related = {r["message"]["text"]: r["physicalLocation"]["region"]["startLine"] for r in results[0]["relatedLocations"]}
    assert related == {"where it was freed": line("inlined free"), "where it was allocated": line("allocation")}
    assert len({r["partialFingerprints"]["spanguardFingerprint/v1"] for r in results}) == 2


def test_sarif_outside_of_the_root(spanguard, saved):
    log = json.loads(spanguard("report", saved, "--to=sarif", "--root=/usr").clean())
    at = log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]
    assert at["artifactLocation"] == {"uri": f"file://{HERE}/bugs.c"}


def test_nothing_found_leaves_a_file(spanguard, scratch):
    found = scratch / "found.jsonl"
    spanguard("--mode=debug", f"--json={found}", "/bin/true").clean()
    assert found.read_bytes() == b""
    assert json.loads(spanguard("report", found, "--to=sarif").clean())["runs"][0]["results"] == []
    suite = xml.etree.ElementTree.fromstring(spanguard("report", found, "--to=junit").clean()).find(".//testsuite")
    assert (suite.get("failures"), suite.get("errors", "0")) == ("0", "0")
    assert "::error" not in spanguard("report", found, "--to=github").clean()
    found.write_text("what was there\n")
    spanguard("--mode=debug", f"--json={found}", "/bin/true").clean()
    assert found.read_text() == "what was there\n"
    spanguard("--mode=debug", f"--json={scratch}/%p.jsonl", "/bin/true").clean()
    assert [p.name for p in scratch.glob("*.jsonl")] == ["found.jsonl"]


def test_junit(spanguard, saved, scratch):
    root = xml.etree.ElementTree.fromstring(spanguard("report", saved, "--to=junit").clean())
    suite = root.find("testsuite")
    assert (root.tag, suite.get("tests"), suite.get("failures")) == ("testsuites", "2", "2")
    cases = suite.findall("testcase")
    assert [c.get("classname") for c in cases] == ["double-free", "bad-free"]
    assert [c.find("failure").get("type") for c in cases] == ["SG-DF", "SG-IF2"]
    assert "attempting double-free on 0x" in cases[0].find("failure").get("message")
    assert re.search(r"#\d+ twice \S*/bugs\.c:\d+", cases[0].find("failure").text)
    (scratch / "empty").write_text("")
    root = xml.etree.ElementTree.fromstring(spanguard("report", scratch / "empty", "--to=junit").clean())
    assert root.find("testsuite").get("failures") == "0" and len(root.findall("testsuite/testcase")) == 1


def test_github(spanguard, saved, scratch, line):
    summary = scratch / "summary"
    out = spanguard("report", saved, "--to=github", "--root", HERE, env={"GITHUB_STEP_SUMMARY": str(summary)}).clean()
    first, second = out.splitlines()
    assert re.fullmatch(rf"::error file=bugs\.c,line={line('inlined free')},col=\d+,title=double-free \(SG-DF\)::"
                        r"attempting double-free on 0x[0-9a-f]+: .*", first), first
    assert "title=bad-free (SG-IF2)::" in second
    assert f"| double-free (SG-DF) | bugs.c:{line('inlined free')} | `release` | 2 |" in summary.read_text()


def test_escapes(spanguard, scratch):
    """What a program is called must not break out of a format."""
    odd = "a<b>&\"c\",d:e%f\ng"
    report = {"schema": "spanguard-report/1", "kind": "error", "id": "SG-DF", "class": "double-free", "pid": 1,
              "title": odd, "fingerprint": "0" * 16, "summary_stack": "error", "summary_frame": 0,
              "stacks": {"error": {"tid": 1, "frames": [{"pc": "0x1", "symbol": odd, "file": "/x y/" + odd, "line": 3}]}}}
    (scratch / "odd").write_text(json.dumps(report) + "\n")
    github = spanguard("report", scratch / "odd", "--to=github").clean()
    assert github == ("::error file=/x y/a<b>&\"c\"%2Cd%3Ae%25f%0Ag,line=3,title=double-free (SG-DF)::"
                      "a<b>&\"c\",d:e%25f%0Ag\n")
    root = xml.etree.ElementTree.fromstring(spanguard("report", scratch / "odd", "--to=junit").clean())
    assert root.find(".//failure").get("message").replace("\n", " ") == odd.replace("\n", " ")
    log = json.loads(spanguard("report", scratch / "odd", "--to=sarif").clean())
    check_sarif(log)
    assert log["runs"][0]["results"][0]["message"]["text"] == odd


def test_wrong_use(spanguard, scratch, saved):
    for arguments in (["report"], ["report", saved], ["report", saved, "--to"], ["report", saved, "--to=html"],
                      ["report", saved, "--to=sarif", "--frob"]):
        assert spanguard(*arguments).status == 2, arguments
    assert spanguard("report", scratch / "none", "--to=sarif").status == 125
    (scratch / "bad").write_text("{\n")
    done = spanguard("report", scratch / "bad", "--to=sarif")
    assert done.status == 125 and "bad:1: not JSON" in done.err


# ---------------------------------------------------------------- manual pages

@pytest.fixture(scope="module")
def installed(shared_tmp, run):
    prefix = shared_tmp / "prefix"
    done = run(["flock", shared_tmp / "install.lock", "make", "-s", "-C", ROOT, "install", f"PREFIX={prefix}"], timeout=300)
    assert done.status == 0, done
    return prefix


PAGES = ["man1/spanguard.1", "man3/spanguard.3", "man5/spanguard-options.5", "man7/spanguard-errors.7"]


@pytest.mark.parametrize("page", PAGES)
def test_page_is_well_formed(installed, run, page):
    path = installed / "share" / "man" / page
    done = run(["mandoc", "-T", "lint", "-W", "warning", path])
    assert done.status == 0 and done.out == "", done
    assert run(["man", "-l", path], env={"MANWIDTH": "100"}).status == 0


def page_text(installed, page):
    done = subprocess.run(["mandoc", "-T", "utf8", "-O", "width=200", installed / "share" / "man" / page],
                          capture_output=True, text=True, check=True)
    return re.sub(r".\x08", "", done.stdout)


def test_pages_come_from_the_tables(installed, spanguard):
    options = page_text(installed, PAGES[2])
    for row in json.loads(spanguard("options", "--json").clean()):
        assert re.search(rf"^ +{row['name']} ", options, re.M), row["name"]
    errors = page_text(installed, PAGES[3])
    for text in spanguard("explain").clean().splitlines():
        code, word = text.split()[:2]
        assert re.search(rf"^ +{code} . {word}$", errors, re.M), code
        fix = spanguard("explain", code).clean().split("\nFix\n")[1]
        assert " ".join(fix.split())[:60] in " ".join(errors.split()), code
    command = page_text(installed, PAGES[0])
    for verb in re.findall(r"^       spanguard (\w+)", spanguard("help").clean(), re.M):
        assert re.search(rf"^ +{verb}\b", command, re.M), verb
    functions = set(re.findall(r"\bspanguard_\w+(?=\()", (ROOT / "include" / "spanguard.h").read_text()))
    shown = set(re.findall(r"\bspanguard_\w+(?=\()", page_text(installed, PAGES[1])))
    assert functions and functions <= shown, functions - shown


# ---------------------------------------------------------------- make install

USER = """#include <spanguard.h>
#include <stdlib.h>
int main(void) { void *p = spanguard_malloc_noscan(10); free(p); return spanguard_verify(); }
"""


def test_pkg_config(installed, scratch, run):
    source = scratch / "user.c"
    source.write_text(USER)
    flags = run(["pkg-config", "--cflags", "--libs", "spanguard"],
                env={"PKG_CONFIG_PATH": f"{installed}/lib/pkgconfig"}).clean().split()
    subprocess.run(["gcc", "-o", scratch / "user", source, *flags, f"-Wl,-rpath,{installed}/lib"], check=True)
    assert run([scratch / "user"]).clean() == ""
    version = run(["pkg-config", "--modversion", "spanguard"],
                  env={"PKG_CONFIG_PATH": f"{installed}/lib/pkgconfig"}).clean().strip()
    assert f'"{version}"' in (ROOT / "include" / "spanguard.h").read_text()


def test_cmake(installed, scratch, run):
    (scratch / "user.c").write_text(USER)
    (scratch / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.18)\nproject(user C)\nfind_package(spanguard REQUIRED)\n"
        "find_package(Threads REQUIRED)\n"
        "add_executable(shared user.c)\ntarget_link_libraries(shared spanguard::spanguard)\n"
        "add_executable(static user.c)\ntarget_link_libraries(static spanguard::static Threads::Threads)\n")
    done = run(["cmake", "-S", scratch, "-B", scratch / "b", f"-DCMAKE_PREFIX_PATH={installed}"], timeout=120)
    assert done.status == 0, done
    assert run(["cmake", "--build", scratch / "b"], timeout=120).status == 0
    assert run([scratch / "b" / "shared"]).clean() == run([scratch / "b" / "static"]).clean() == ""


def test_installed_command_finds_its_library(installed, run, bugs):
    done = run([installed / "bin" / "spanguard", bugs, "double-free"])
    assert f"{installed}/lib/libspanguard.so" in done.aborted() or "in free " in done.err
    assert run([installed / "bin" / "spanguard", "/bin/true"]).clean() == ""


def test_completion(installed, run):
    script = installed / "share" / "bash-completion" / "completions" / "spanguard"

    def complete(*words):
        code = (f"source {script}; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; compopt() {{ :; }}; "
                "_spanguard; printf '%s\\n' \"${COMPREPLY[@]}\"")
        return run(["bash", "-c", code]).clean().split()
    assert complete("spanguard", "exp") == ["explain"]
    assert "SG-DF" in complete("spanguard", "explain", "SG-D")
    assert "--halt-on-error=" in complete("spanguard", "--halt")
