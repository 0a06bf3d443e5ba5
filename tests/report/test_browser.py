"""The pages in a real browser: they load without complaint, and what can be clicked does what it says."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.action_chains import ActionChains
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
    """The texts of a column on the screen, from top to bottom; none where the column is hidden."""
    script = """const column = jQuery("#table").DataTable().column(`${arguments[0]}:name`, {page: "current"});
        return column.any() && column.visible() ? column.nodes().toArray().map(cell => cell.innerText) : []"""
    texts: list[str] = page.execute_script(script, key)
    return [text.replace(words.SPACE, " ").strip() for text in texts]


def head(page: WebDriver, key: str) -> WebElement:
    found: WebElement = page.execute_script(
        "return jQuery('#table').DataTable().column(`${arguments[0]}:name`).header()", key
    )
    return found


def sort_by(page: WebDriver, key: str) -> str | None:
    """The order after a click on a column's title, which the page may show a moment later on a busy machine."""
    before = head(page, key).get_attribute("aria-sort")
    head(page, key).find_element(By.CSS_SELECTOR, ".dt-column-title").click()
    WebDriverWait(page, 10).until(lambda page: head(page, key).get_attribute("aria-sort") != before)
    return head(page, key).get_attribute("aria-sort")


def one(page: WebDriver, selector: str) -> WebElement:
    return page.find_element(By.CSS_SELECTOR, selector)


def count(page: WebDriver, selector: str) -> int:
    return len(page.find_elements(By.CSS_SELECTOR, selector))


def press(page: WebDriver, text: str, inside: str = ".dt-buttons") -> None:
    """Press the button with this text."""
    (button,) = [found for found in page.find_elements(By.CSS_SELECTOR, f"{inside} button") if found.text == text]
    button.click()


def tick_box(page: WebDriver, run: str) -> WebElement:
    return page.find_element(By.XPATH, f"//tbody/tr[td//a='{run}']/td[contains(@class, 'pick')]/input")


def wait_for(page: WebDriver, selector: str, number: int) -> None:
    """Charts are drawn a moment after what they follow."""
    WebDriverWait(page, 20).until(lambda page: count(page, selector) == number)


def places(page: WebDriver, number: int) -> dict[str, tuple[float, float]]:
    """By run, where its point lies in the chart of accuracy against cost, in pixels from the top left."""
    wait_for(page, POINTS, number)
    found = {}
    for point in page.find_elements(By.CSS_SELECTOR, POINTS):
        x, y = re.findall(r"-?[\d.]+", point.get_attribute("transform") or "")[:2]
        found[(point.get_attribute("aria-label") or "").split(":")[0]] = (float(x), float(y))
    return found


def heights(page: WebDriver, selector: str) -> list[float]:
    """The heights at which a line of straight pieces turns, from the top."""
    path = one(page, selector).get_attribute("d") or ""
    return [float(y) for y in re.findall(r"[ML][-\d.]+,([-\d.]+)", path)]


POINTS = "#cost .mark-symbol.role-mark path"
CURVES = "#{} .mark-line path"


def test_it_shows_every_run(page: WebDriver) -> None:
    assert sorted(column(page, "run")) == ["a", "b", "c", "d", "e <b>& #1 (numbers)", "f (numbers)"]
    assert one(page, ".dt-info").text == "6 of 6 rows"
    assert sorted(column(page, "status"))[:5] == ["failed", *["finished"] * 4]
    (running,) = [text for text in column(page, "status") if text.startswith("running")]
    assert re.fullmatch(r"running, seen \d\d-\d\d \d\d:\d\d", running)
    assert one(page, "#refused").text.count("bad/result.json") == 2
    assert count(page, "tbody b") == 0 and count(page, "script") == 4
    assert one(page, ".badge.failed").get_attribute("title") == EVIL
    assert not column(page, "departs")  # nothing but the seed and s_max differs


def test_sorting_by_number_by_text_and_by_keyboard(page: WebDriver) -> None:
    assert sort_by(page, "params") == "descending"
    assert column(page, "params") == ["200,000", "10,000", "9,000", "9,000", "–", "–"]
    assert sort_by(page, "params") == "ascending"
    assert column(page, "params") == ["9,000", "9,000", "10,000", "200,000", "–", "–"]
    assert sort_by(page, "s_max") == "ascending" and head(page, "params").get_attribute("aria-sort") is None
    assert column(page, "s_max") == ["2", "8", "8", "8", "8", "16"]
    assert sort_by(page, "run") == "ascending"
    assert [text[0] for text in column(page, "run")] == list("abcdef")
    head(page, "test/acc").find_element(By.CSS_SELECTOR, "[role=button]").send_keys(Keys.ENTER)
    WebDriverWait(page, 10).until(lambda _: column(page, "test/acc")[0] == "97.00")
    assert column(page, "test/acc") == ["97.00", "94.00", "90.00", "80.00", "–", "–"]
    # The focus stays on the header, so that another press turns the order round.
    page.switch_to.active_element.send_keys(Keys.ENTER)
    WebDriverWait(page, 10).until(lambda _: column(page, "test/acc")[0] == "80.00")


def test_filters_by_text_and_by_value(page: WebDriver) -> None:
    search = one(page, ".dt-search input")
    search.send_keys("FAILED")
    assert column(page, "status") == ["failed"] and one(page, ".dt-info").text == "1 of 6 rows"
    search.clear()
    search.send_keys("97.00 qblif")
    assert column(page, "run") == ["d"]
    search.send_keys(" nowhere")
    assert column(page, "run") == [] and one(page, ".dt-empty").text == "No run fits the filters."
    press(page, "show all")
    assert len(column(page, "run")) == 6 and search.get_attribute("value") == ""
    for key, choice in (("s_max", "8"), ("status", "finished")):
        head(page, key).find_element(By.CSS_SELECTOR, "button.dtcc-button").click()
        if key == "s_max":
            texts = [found.text for found in page.find_elements(By.CSS_SELECTOR, ".dtcc-list-buttons button")]
            assert texts == ["2", "8", "16"]
        press(page, choice, ".dtcc-list-buttons")
        one(page, "h1").click()
    assert sorted(column(page, "run")) == ["a", "b"]
    assert sorted(places(page, 2)) == ["a", "b"]


def test_columns_can_be_hidden_and_shown(page: WebDriver) -> None:
    assert not column(page, "val/acc")
    one(page, ".buttons-colvis").click()
    press(page, "validation accuracy (%)", ".dt-button-collection")
    assert column(page, "val/acc").count("90.00") == 4
    press(page, "seed", ".dt-button-collection")
    assert not column(page, "seed")


def test_seeds_are_averaged(page: WebDriver) -> None:
    press(page, "untick all")
    tick_box(page, "c").click()
    one(page, "#averages").click()
    assert one(page, ".dt-info").text == "3 of 3 rows"
    pair = [0.90, 0.94]
    # Of four runs: one failed, one runs.
    text = f"{100 * statistics.mean(pair):.2f} ± {100 * statistics.stdev(pair):.2f} (2)"
    assert sorted(column(page, "test/acc")) == ["80.00", text, "97.00"]
    group = column(page, "test/acc").index(text)
    assert column(page, "seed")[group] == "0 (3×), 1"
    assert len(places(page, 3)) == 3
    summary = one(page, "tbody details summary")
    assert summary.text == "4 runs"
    summary.click()
    assert [link.text for link in page.find_elements(By.CSS_SELECTOR, "tbody details a")][-2:] == ["a", "f (numbers)"]
    # A tick of a configuration draws its runs, and the ticks outlast the change.
    assert tick_box(page, "c").is_selected()
    tick_box(page, "c").click()
    page.find_element(By.XPATH, "//tbody/tr[.//details]/td/input").click()
    wait_for(page, CURVES.format("acc"), 4)
    one(page, "#averages").click()
    assert {run for run in "abcd" if tick_box(page, run).is_selected()} == {"a", "b"}


def test_an_average_says_of_how_many(page: WebDriver, tmp_path: Path) -> None:
    for index, (seed, status) in enumerate([(0, "finished"), (1, "finished"), (1, "failed")]):
        acc = {"test/acc": 0.8 + 0.1 * seed} if status == "finished" else {}
        add_run(tmp_path, f"runs/{index}", seed, metrics=Metrics({}, acc), status=status)
    page.get(build_index(tmp_path).as_uri())
    one(page, "#averages").click()
    assert column(page, "test/acc") == ["85.00 ± 7.07 (2)"]
    assert column(page, "seed") == ["0, 1 (2×)"]


def test_curves_follow_the_ticks(page: WebDriver) -> None:
    wait_for(page, CURVES.format("acc"), 6)  # the three newest runs at first
    press(page, "untick all")
    WebDriverWait(page, 20).until(lambda page: not one(page, "#loss").is_displayed())
    assert one(page, ".hint").is_displayed()
    tick_box(page, "c").click()
    wait_for(page, CURVES.format("acc"), 2)
    # Validation accuracy goes 0.5, 0.9, 0.8: on the screen up means a smaller y.
    solid = CURVES.format("acc") + ":not([stroke-dasharray='5,3'])"
    found = heights(page, solid)
    assert (found[0] - found[2]) / (found[0] - found[1]) == pytest.approx(0.75, abs=0.01)
    tick_box(page, "a").send_keys(Keys.SPACE)
    assert page.switch_to.active_element == tick_box(page, "a")
    for chart in ("loss", "acc"):
        wait_for(page, CURVES.format(chart), 4)
    colours = {curve.value_of_css_property("stroke") for curve in page.find_elements(By.CSS_SELECTOR, solid)}
    rows = page.find_elements(By.CSS_SELECTOR, "tr.selected .pick")
    assert len(colours) == 2 and {row.value_of_css_property("border-left-color") for row in rows} == {
        colour.replace("rgb(", "rgba(").replace(")", ", 1)") for colour in colours
    }
    assert not page.find_elements(By.XPATH, "//tbody/tr[td//a='f (numbers)']/td/input[not(@disabled)]")
    tick_box(page, "c").click()
    wait_for(page, CURVES.format("loss"), 2)


def test_averages_that_differ_in_other_settings_have_colours_and_names_of_their_own(
    page: WebDriver, tmp_path: Path
) -> None:
    for index, epochs in enumerate([20, 20, 5, 5, 20, 20]):
        run = add_run(tmp_path, f"runs/{index}", index % 2, 8 if index < 4 else 2, epochs)
        write_metrics(run / "metrics.csv")
    page.get(build_index(tmp_path).as_uri())
    press(page, "untick all")
    one(page, "#averages").click()
    for box in page.find_elements(By.CSS_SELECTOR, "tbody td.pick input"):
        box.click()
    wait_for(page, CURVES.format("acc"), 12)  # of six runs, in training and in validation
    legend = [
        text.get_attribute("textContent")
        for text in page.find_elements(By.CSS_SELECTOR, "#acc .role-legend-label text")
    ]
    assert len(set(legend)) == 3 and [text for text in legend if "trainer.max_epochs=5" in str(text)]
    curves = page.find_elements(By.CSS_SELECTOR, CURVES.format("acc"))
    colours = [curve.value_of_css_property("stroke") for curve in curves]
    rows = page.find_elements(By.CSS_SELECTOR, "tr.selected .pick")
    shown = {row.value_of_css_property("border-left-color") for row in rows}
    assert sorted(colours.count(colour) for colour in set(colours)) == [4, 4, 4]
    assert {colour.replace("rgb(", "rgba(").replace(")", ", 1)") for colour in colours} == shown


def test_a_ticked_row_on_a_later_page_has_its_colour(page: WebDriver, tmp_path: Path) -> None:
    for index in range(30):
        run = add_run(tmp_path, f"runs/{index:02}", index)
        write_metrics(run / "metrics.csv")
    page.get(build_index(tmp_path).as_uri())
    Select(one(page, ".dt-length select")).select_by_visible_text("25")
    sort_by(page, "run")
    assert column(page, "run") == [f"{index:02} (numbers)" for index in range(25)] and count(page, "tr.selected") == 0
    wait_for(page, CURVES.format("acc"), 6)
    press(page, "2", ".dt-paging")
    colours = page.execute_script("return [...document.querySelectorAll('tr.selected')].map(row => row.style.cssText)")
    assert sorted(colours) == [f"--hue: var(--hue{index});" for index in range(3)]


def test_the_plot_shows_runs_and_leads_to_their_pages(page: WebDriver, outputs: Path) -> None:
    Select(one(page, "#axis-x select")).select_by_visible_text("energy ÷ zero-skipping ReLU network's, fp32")
    found = places(page, 4)
    assert sorted(found, key=lambda name: found[name][0]) == ["c", "a", "b", "d"]
    assert sorted(found, key=lambda name: -found[name][1]) == ["c", "a", "b", "d"]
    point = one(page, '#cost path[aria-label^="d:"]')
    ActionChains(page).move_to_element(point).perform()
    WebDriverWait(page, 20).until(lambda page: "97.00" in one(page, "#vg-tooltip-element").text)
    point.click()
    assert page.current_url == (outputs / "runs/d/report.html").as_uri() and page.title == "its own page"


def test_a_run_that_is_beaten_in_both_is_not_on_the_front(page: WebDriver, tmp_path: Path) -> None:
    for index, (x, y) in enumerate([(1, 0.2), (2, 0.1), (2, 0.6), (0.5, 0.05), (3, 0.6)]):
        add_run(
            tmp_path, f"runs/{index}", energy=make_energy(relative_synapses=x), metrics=Metrics({}, {"test/acc": y})
        )
    page.get(build_index(tmp_path).as_uri())
    found = places(page, 5)
    turns = {round(y) for y in heights(page, "#cost .mark-line path")}
    assert turns == {round(found[name][1]) for name in "023"}


def test_links_of_the_table_resolve(page: WebDriver, outputs: Path) -> None:
    links = page.find_elements(By.CSS_SELECTOR, "tbody .run a")
    targets = [unquote((link.get_attribute("href") or "").removeprefix("file://")) for link in links]
    assert sorted(targets)[0] == str(outputs / "runs/a/report.html")
    assert len(targets) == 6 and all(Path(target).is_file() for target in targets)


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
    driver.get(build_index(tmp_path).as_uri())
    assert sort_by(driver, "params") == "descending"
    assert column(driver, "params")[0] == "1,000" and len(column(driver, "params")) == 50
    driver.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert len(set(column(driver, "params"))) == 1_000
    one(driver, "#averages").click()
    assert one(driver, ".dt-info").text == "100 of 100 rows"
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
