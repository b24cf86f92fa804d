"""The page in a real browser: charts are drawn, choices work, and texts of data stay texts."""

import json
import re
import shutil
import subprocess
from html import unescape
from importlib.resources import files

import made_up
import pytest

from metatrain.report.page import again, write_report
from metatrain.report.record import read

BROWSER = next((found for name in ("chromium", "chromium-browser", "google-chrome", "chrome") if (found := shutil.which(name))), None)

# Looks at the page, types and chooses, and leaves what it has seen in the title.
PROBE = """
<script>
const places = [...document.querySelectorAll(".chart")];
const choose = (select, value) => { select.value = value; select.dispatchEvent(new Event("change")); select.dispatchEvent(new Event("input")); };
const marks = (key) => document.querySelectorAll("#chart-" + key + " svg .role-mark.mark-symbol path, #chart-" + key + " svg .role-mark.mark-rect path").length;
const ready = setInterval(async () => {
  if (!places.every((place) => place.dataset.drawn)) return;
  clearInterval(ready);
  const drawn = places.filter((place) => place.querySelector("svg")).map((place) => place.id.slice(6));
  const seen = { drawn, tasks: [marks("tasks")], confusion: [marks("confusion")] };
  choose(document.querySelector("#chart-tasks select"), "prototypes");
  choose(document.querySelector("#chart-confusion select"), "x");
  const field = document.querySelector("[data-filters=mistakes]");
  field.value = "of x";
  field.dispatchEvent(new Event("input"));
  await new Promise((done) => setTimeout(done, 300));
  seen.tasks.push(marks("tasks"));
  seen.confusion.push(marks("confusion"));
  seen.rows = [...document.querySelectorAll("#mistakes tbody tr")].filter((row) => !row.hidden).map((row) => row.children[1].textContent);
  seen.count = document.getElementById("mistakes-count").textContent;
  seen.hit = window.hit ?? null;
  seen.nameless = [...document.querySelectorAll("input, select")].filter((field) => !field.labels.length && !field.getAttribute("aria-label")).length;
  seen.wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
  seen.scheme = getComputedStyle(document.body).backgroundColor;
  document.title = JSON.stringify(seen);
}, 20);
</script>
"""


# Lets axe look at the page with everything unfolded; what it cannot decide (contrast within pictures, say) is left out.
ACCESSIBILITY = """
<script>
const ready = setInterval(async () => {
  if (![...document.querySelectorAll(".chart")].every((place) => place.dataset.drawn)) return;
  clearInterval(ready);
  document.querySelectorAll("details").forEach((part) => { part.open = true; });
  const found = await axe.run();
  const wrong = found.violations.map((rule) => [rule.id, rule.help, rule.nodes.map((node) => node.html.slice(0, 200))]);
  document.title = JSON.stringify({ wrong, right: found.passes.map((rule) => rule.id) });
}, 20);
</script>
"""


def open_in_browser(path, width: int = 1000, *flags: str, probe: str = PROBE) -> tuple[dict, list[str]]:
    """(what the probe saw, what the console says)."""
    html, _, end = path.read_text().rpartition("</body>")
    path.write_text(f"{html}{probe}</body>{end}")
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        f"--window-size={width},900",
        "--virtual-time-budget=20000",
        *flags,
    ]
    done = subprocess.run([*command, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=120)
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)[1]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert title.startswith("{"), (title, console)
    return json.loads(unescape(title)), console


@pytest.fixture
def page(tmp_path):
    write_report(made_up.run(tmp_path / "run"), tmp_path / "report.html")
    return tmp_path / "report.html"


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
@pytest.mark.parametrize(("width", "scheme"), [(1000, 1), (500, 0)])
def test_in_a_browser(page, width, scheme):
    seen, console = open_in_browser(page, width, f"--blink-settings=preferredColorScheme={scheme}")
    assert console == []
    assert seen["drawn"] == ["arms", "shots", "steps", "tasks", "confusion", "validation", "loss", "accuracy", "rates", "map", "speed"]
    every, of_one = seen["tasks"]
    assert every - of_one == 2  # the points of two tasks under the arm that was not chosen
    assert seen["confusion"][0] != seen["confusion"][1]
    assert seen["rows"] == ["of x"] and seen["count"] == "1 of 3 rows"
    assert seen["hit"] is None
    assert seen["nameless"] == 0
    assert not seen["wide"]
    assert seen["scheme"] == ("rgb(255, 255, 255)" if scheme else "rgb(20, 23, 26)")


def accessibility() -> str:
    """The rules of axe-core for screen readers, keyboards and contrast, and what asks them."""
    return f"<script>{(files('axe_core_python') / 'axe.min.js').read_text(encoding='utf-8')}</script>{ACCESSIBILITY}"


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
@pytest.mark.parametrize(("width", "scheme"), [(1000, 1), pytest.param(500, 0, marks=pytest.mark.nightly)])
def test_axe_finds_nothing_wrong(page, width, scheme):
    seen, _ = open_in_browser(page, width, f"--blink-settings=preferredColorScheme={scheme}", probe=accessibility())
    assert seen["wrong"] == []
    assert {"color-contrast", "label", "region", "landmark-unique", "svg-img-alt", "bypass"} <= set(seen["right"])


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_axe_finds_nothing_wrong_with_a_comparison(cli, tmp_path):
    run = made_up.run(tmp_path / "run")
    assert cli("compare", str(run), f"{run}:prototypes", "html=compared.html").code == 0
    seen, _ = open_in_browser(tmp_path / "compared.html", probe=accessibility())
    assert seen["wrong"] == [] and "landmark-unique" in seen["right"]


def test_texts_stand_there_as_they_are_and_nothing_is_loaded(page):
    html = page.read_text()
    assert html.count("</script>") == 2
    html = re.sub(r"<script>.*?</script>", "", html, count=1, flags=re.DOTALL)  # Vega's own
    assert "<img src=x" not in html and "<script>window.hit" not in html and "{{ 7 * 7 }}" in html
    assert "&lt;img src=x onerror=" in html
    assert "default-src 'none'" in html and not re.search(r"<(script|link|img|iframe)[^>]*\b(src|href)=", html)


def test_it_says_how_to_make_the_run_again(tmp_path):
    record = read(made_up.run(tmp_path / "run"))
    assert again(record) == """metatrain train inner.lr=0.01 'tasks.path='"'"'my tasks'"'"''"""


def test_a_run_that_has_just_begun_has_a_page_too(tmp_path):
    run = made_up.run(tmp_path / "run")
    for name in ("results.json", "analysis.json", "metrics.jsonl", "timings.jsonl", "overrides.yaml"):
        (run / name).unlink()
    write_report(run, tmp_path / "report.html")
    assert "Reproduce" in (tmp_path / "report.html").read_text()
