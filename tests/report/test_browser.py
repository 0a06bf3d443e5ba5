"""The pages in a real browser: they load without complaint, and what can be clicked does what it says."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from qbsnn.report.run.page import build
from qbsnn.report.runs.page import build_index
from qbsnn.results import formatting as words
from qbsnn.results.schema import Metrics
from tests.report.browser import browser, complaints, needs_browser
from tests.report.runs.test_page import add_run
from tests.report.samples import make_energy, make_result, write_diagnostics, write_metrics

pytestmark = needs_browser
EVIL = "<script>alert(1)</script><b>"
RUNS = [  # place, seed, s_max, accuracy, parameters, energy over ReLU
    ("runs/a", 0, 8, 0.90, 9_000, 0.5),
    ("runs/b", 1, 8, 0.94, 9_000, 0.7),
    ("runs/c", 0, 2, 0.80, 10_000, 0.2),
    ("runs/d", 0, 16, 0.97, 200_000, 1.2),
]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four finished runs, the first two seeds of one configuration; a failed one, a running one, a broken file."""
    folder = tmp_path_factory.mktemp("outputs")
    for place, seed, s_max, accuracy, params, share in RUNS:
        energy = make_energy(relative={model: {"relu": share} for model in make_energy().models})
        metrics = Metrics({"test/acc": accuracy - 0.01}, {"test/acc": accuracy, "val/acc": 0.9, "epoch": 1.0})
        run = add_run(folder, place, seed, s_max, metrics=metrics, params=params, energy=energy)
        write_metrics(run / "metrics.csv")
        (run / "report.html").write_text("<title>its own page</title>", encoding="utf-8")
    nothing: dict[str, Any] = {"absorption": None, "integer": None, "energy": None, "metrics": Metrics(), "params": 0}
    add_run(folder, "runs/e <b>& #1", status="failed", error=EVIL, command=EVIL, **nothing)
    add_run(folder, "runs/f", status="running", started="", **nothing)
    (folder / "bad").mkdir()
    (folder / "bad" / "result.json").write_text("{", encoding="utf-8")
    build_index(folder)
    return folder


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def page(driver: WebDriver, outputs: Path) -> Iterator[WebDriver]:
    driver.get((outputs / "report.html").as_uri())
    yield driver
    assert complaints(driver) == []


def column(page: WebDriver, key: str) -> list[str]:
    return [
        cell.text.replace(words.SPACE, " ") for cell in page.find_elements(By.CSS_SELECTOR, f'#body [data-key="{key}"]')
    ]


def head(page: WebDriver, key: str) -> WebElement:
    return page.find_element(By.CSS_SELECTOR, f'#head [data-key="{key}"]')


def sort_by(page: WebDriver, key: str) -> str | None:
    head(page, key).find_element(By.TAG_NAME, "button").click()
    return head(page, key).get_attribute("aria-sort")


def one(page: WebDriver, selector: str) -> WebElement:
    return page.find_element(By.CSS_SELECTOR, selector)


def count(page: WebDriver, selector: str) -> int:
    return len(page.find_elements(By.CSS_SELECTOR, selector))


def test_it_shows_every_run(page: WebDriver) -> None:
    assert sorted(column(page, "run")) == ["a", "b", "c", "d", "e <b>& #1 (numbers)", "f (numbers)"]
    assert one(page, "#count").text == "6 of 6 runs"
    assert sorted(column(page, "status"))[:5] == ["failed", *["finished"] * 4]
    assert one(page, "#refused").text.count("bad/result.json") == 2
    assert count(page, "#body b") == 0 and count(page, "script") == 2
    failed = one(page, ".badge.failed")
    assert failed.get_attribute("title") == EVIL
    assert not column(page, "departs")  # nothing but the seed and s_max differs


def test_sorting_by_number_by_text_and_by_keyboard(page: WebDriver) -> None:
    assert sort_by(page, "params") == "descending"
    assert column(page, "params") == ["200,000", "10,000", "9,000", "9,000", "–", "–"]
    assert sort_by(page, "params") == "ascending"
    assert column(page, "params") == ["9,000", "9,000", "10,000", "200,000", "–", "–"]
    assert sort_by(page, "s_max") == "descending" and head(page, "params").get_attribute("aria-sort") == "none"
    assert column(page, "s_max") == ["16", "8", "8", "8", "8", "2"]
    assert sort_by(page, "run") == "ascending"
    assert [text[0] for text in column(page, "run")] == list("abcdef")
    head(page, "best").find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    assert column(page, "best") == ["97.00 %", "94.00 %", "90.00 %", "80.00 %", "–", "–"]
    # The focus stays on the header, so that another press turns the order round.
    page.switch_to.active_element.send_keys(Keys.ENTER)
    assert column(page, "best")[0] == "80.00 %"


def test_filters_by_text_and_by_value(page: WebDriver) -> None:
    search = one(page, "#search")
    search.send_keys("FAILED")
    assert column(page, "status") == ["failed"] and one(page, "#count").text == "1 of 6 runs"
    search.clear()
    search.send_keys("97.00 % qblif")
    assert column(page, "run") == ["d"]
    search.send_keys(" nowhere")
    assert column(page, "run") == [] and one(page, "#nothing").is_displayed()
    one(page, "#reset").click()
    assert len(column(page, "run")) == 6 and search.get_attribute("value") == ""
    facet = Select(one(page, '[data-facet="s_max"]'))
    assert [option.text for option in facet.options] == ["all", "2 (1)", "8 (4)", "16 (1)"]
    facet.select_by_value("8")
    Select(one(page, '[data-facet="status"]')).select_by_value("finished")
    assert sorted(column(page, "run")) == ["a", "b"]
    assert count(page, ".point") == 2
    assert count(page, '[data-facet="neuron"]') == 0  # all runs have one


def test_columns_can_be_hidden_and_shown(page: WebDriver) -> None:
    assert not column(page, "val")
    one(page, "details.columns summary").click()
    boxes = {label.text: label for label in page.find_elements(By.CSS_SELECTOR, "#columns label")}
    boxes["val acc"].click()
    assert column(page, "val").count("90.00 %") == 4
    boxes["seed"].click()
    assert not column(page, "seed")


def test_seeds_are_averaged(page: WebDriver) -> None:
    one(page, "#grouped").click()
    assert one(page, "#count").text == "6 of 6 runs, 3 configurations"
    pair = [0.90, 0.94]
    text = (
        f"{100 * statistics.mean(pair):.2f} ± {100 * statistics.stdev(pair):.2f} % (2)"  # of four: one failed, one runs
    )
    group = one(page, "tr.group")
    assert group.find_element(By.CSS_SELECTOR, '[data-key="best"]').text.replace(words.SPACE, " ") == text
    assert group.find_element(By.CSS_SELECTOR, '[data-key="seed"]').text == "0 (3×), 1"
    opener = group.find_element(By.CSS_SELECTOR, ".opener")
    assert opener.get_attribute("aria-expanded") == "false"
    opener.click()
    assert one(page, ".opener").get_attribute("aria-expanded") == "true"
    box = one(page, "tr.group input")
    assert box.is_selected() == page.execute_script(
        "return ['a', 'b'].every(n => state.selected.some(r => r.name === n))"
    )
    one(page, "#clear").click()
    box.click()
    assert count(page, "#curves-acc .curve.val") == 2
    one(page, '[aria-label="Draw the curves of a"]').click()
    assert count(page, "#curves-acc .curve.val") == 1 and not box.is_selected()
    assert {"a", "b"} <= set(column(page, "run"))


def test_an_average_says_of_how_many(page: WebDriver, tmp_path: Path) -> None:
    for index, (seed, status) in enumerate([(0, "finished"), (1, "finished"), (1, "failed")]):
        acc = {"test/acc": 0.8 + 0.1 * seed} if status == "finished" else {}
        add_run(tmp_path, f"runs/{index}", seed, metrics=Metrics({}, acc), status=status)
    page.get(build_index(tmp_path).as_uri())
    one(page, "#grouped").click()
    assert [text.replace(words.SPACE, " ") for text in column(page, "best")] == ["85.00 ± 7.07 % (2)"]
    assert column(page, "seed") == ["0, 1 (2×)"]


def test_curves_follow_the_ticks(page: WebDriver) -> None:
    one(page, "#clear").click()
    assert count(page, "#curves-loss svg") == 0 and one(page, "#curves-hint").is_displayed()
    box = '[aria-label="Draw the curves of {}"]'
    one(page, box.format("a")).click()
    one(page, box.format("c")).send_keys(Keys.SPACE)
    assert page.switch_to.active_element.get_attribute("aria-label") == "Draw the curves of c"
    assert count(page, "#curves-loss .curve") == count(page, "#curves-acc .curve") == 4
    assert count(page, "#curves-acc .curve.val.hue0") == 1 and count(page, "#curves-acc .curve.val.hue1") == 1
    # Validation accuracy goes 0.5, 0.9, 0.8: on the screen up means a smaller y.
    path = one(page, "#curves-acc .curve.val.hue0 path").get_attribute("d")
    heights = [float(point.split(",")[1]) for point in (path or "").strip("M").split("L")]
    assert (heights[0] - heights[2]) / (heights[0] - heights[1]) == pytest.approx(0.75, abs=0.01)
    assert not one(page, box.format("f")).is_enabled()
    one(page, "#curves-runs button").click()
    assert count(page, "#curves-loss .curve") == 2


def test_the_plot_shows_runs_and_leads_to_their_pages(page: WebDriver, outputs: Path) -> None:
    Select(one(page, "#axis-x")).select_by_value("relative/fp32")
    places = {}
    for point in page.find_elements(By.CSS_SELECTOR, ".point"):
        circle = point.find_element(By.TAG_NAME, "circle")
        name = (point.get_attribute("aria-label") or "").split(";")[0]
        places[name] = (float(circle.get_attribute("cx") or 0), float(circle.get_attribute("cy") or 0))
    assert sorted(places, key=lambda name: places[name][0]) == ["c", "a", "b", "d"]
    assert sorted(places, key=lambda name: -places[name][1]) == ["c", "a", "b", "d"]
    assert (one(page, ".front").get_attribute("d") or "").count("H") == 3
    point = one(page, '.point[aria-label^="d;"]')
    page.execute_script("arguments[0].focus()", point)
    assert one(page, "#tip").is_displayed() and "97.00 %" in one(page, "#tip").text.replace(words.SPACE, " ")
    point.find_element(By.TAG_NAME, "circle").click()
    assert page.current_url == (outputs / "runs/d/report.html").as_uri() and page.title == "its own page"


def test_a_run_that_is_beaten_in_both_is_not_on_the_front(page: WebDriver) -> None:
    found = page.execute_script("return front([{x:1,y:1},{x:2,y:0.5},{x:2,y:3},{x:0,y:0.2},{x:3,y:3}])")
    assert [(point["x"], point["y"]) for point in found] == [(0, 0.2), (1, 1), (2, 3)]


def test_links_of_the_table_resolve(page: WebDriver, outputs: Path) -> None:
    links = page.find_elements(By.CSS_SELECTOR, "#body th a")
    targets = [unquote((link.get_attribute("href") or "").removeprefix("file://")) for link in links]
    assert sorted(targets)[0] == str(outputs / "runs/a/report.html")
    assert len(targets) == 6 and all(Path(target).is_file() for target in targets)


@pytest.mark.parametrize(
    ("kind", "write", "found"),
    [
        ("percent", words.percent, [0.5, 0.97833, 1.0, 0.0, None]),
        ("ratio", lambda value: words.percent(value, 1), [1.683, 0.04]),
        ("number", words.number, [0.12345678, 12345.6, 999.96, 0.0, 1.5e-7, 31.0, -0.5, 0.000123456, None]),
        ("int", words.number, [0, 12, 1234567, None]),
        ("energy", words.energy, [12.34, 2_304_000.0, 26.63e6, 999.99, 0.0]),
        ("duration", words.duration, [4.23, 59.96, 204.0, 3725.0, 60.0]),
    ],
)
def test_numbers_look_as_on_the_page_of_a_run(
    page: WebDriver, kind: str, write: Any, found: list[float | None]
) -> None:
    texts = page.execute_script("return arguments[0].map(value => shown(value, arguments[1]))", found, kind)
    assert texts == [words.NONE if value is None else write(value) for value in found]
    assert page.execute_script("return shown('nan', 'percent')") == words.percent(float("nan"))


def test_a_run_long_silent_says_so(page: WebDriver) -> None:
    assert "running" in column(page, "status")
    page.execute_script("runs.forEach(run => { run.seen -= 7200 }); rowCache = new Map(); render()")
    assert [text for text in column(page, "status") if text.startswith("running, silent for 2 h")]


def test_dark_and_narrow(page: WebDriver) -> None:
    colour = "return getComputedStyle(document.body).backgroundColor"
    light = page.execute_script(colour)
    feature = {"name": "prefers-color-scheme", "value": "dark"}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    size = {"width": 420, "height": 900, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        assert (light, page.execute_script(colour)) == ("rgb(244, 246, 249)", "rgb(17, 21, 27)")
        wide = page.execute_script("return document.documentElement.scrollWidth")
        assert wide <= 420
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_policy_stops_a_foreign_script(driver: WebDriver, outputs: Path) -> None:
    source = (outputs / "report.html").read_text(encoding="utf-8")
    foreign = outputs / "foreign.html"
    foreign.write_text(source.replace("</body>", "<script>document.title = 'mine'</script></body>"), encoding="utf-8")
    driver.get(foreign.as_uri())
    assert driver.title != "mine" and any("Content Security Policy" in text for text in complaints(driver))


@pytest.mark.slow
def test_a_thousand_runs(driver: WebDriver, tmp_path: Path) -> None:
    for index in range(1_000):
        run = add_run(tmp_path, f"runs/{index}", index % 5, 1 + index // 5 % 100, params=index + 1)
        write_metrics(run / "metrics.csv")
    page = build_index(tmp_path)
    assert page.stat().st_size < 4_000_000
    driver.get(page.as_uri())
    assert sort_by(driver, "params") == "descending"
    assert one(driver, '#body [data-key="params"]').text == "1,000"
    # Rows come as one scrolls, and all of them before printing.
    assert count(driver, "#body tr") == 150
    driver.execute_script("scroller.scrollTop = scroller.scrollHeight")
    WebDriverWait(driver, 10).until(lambda page: count(page, "#body tr") == 300)
    driver.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert len(set(column(driver, "params"))) == 1_000
    one(driver, "#grouped").click()
    assert one(driver, "#count").text == "1,000 of 1,000 runs, 100 configurations"
    assert complaints(driver) == []


def test_the_page_of_one_run_loads_without_complaint(driver: WebDriver, tmp_path: Path) -> None:
    make_result().write(tmp_path / "result.json")
    write_metrics(tmp_path / "metrics.csv")
    write_diagnostics(tmp_path / "diagnostics.npz")
    driver.get(build(tmp_path).as_uri())
    assert complaints(driver) == []
    sizes = driver.execute_script("return [...document.images].map(image => image.naturalWidth)")
    assert len(sizes) == 7 and all(size > 100 for size in sizes)
    assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")
