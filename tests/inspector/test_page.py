"""The inspector's script in a browser, with messages to the kernel written down instead of sent."""

import base64
import json
from dataclasses import replace

import numpy as np
import pytest
from tables import scores_table
from toy import toy_survey

from lensq.inspector import Inspector

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]
NAME = "<img src=x onerror=document.title='run'>"
MODEL = """
const data = %s, bytes = Uint8Array.from(atob(data.pixels), (c) => c.charCodeAt(0));
data.pixels = new DataView(bytes.buffer);
window.heard = {};
window.sent = [];
window.model = {
  get: (name) => data[name],
  set: (name, value) => { data[name] = value; (heard[`change:${name}`] || (() => {}))(); },
  on: (name, act) => { heard[name] = act; }, off: () => {},
  send: (message) => { sent.push([message.do, ...message.with]); heard["msg:custom"]({ done: message.id }); },
};
"""


@pytest.fixture(scope="module")
def inspector(tmp_path_factory):
    survey = toy_survey(tmp_path_factory.mktemp("survey"), 130, 16)
    survey = replace(survey, names=np.array([NAME, "J1", *survey.names[2:]]))
    table = scores_table(130, 0, seed=4).drop(columns="is_lens").assign(name=survey.names)
    table = table.assign(score=-np.arange(130.0), ra=150.0, dec=2.0)
    return Inspector(survey, table)


def show(inspector, page):
    """Draw an inspector on an empty page, without a kernel behind it."""
    data = {name: getattr(inspector, name) for name in ("page", "overview", "progress")}
    data["pixels"] = base64.b64encode(inspector.pixels).decode()
    script = inspector._esm.replace("export default", "window.widget =")
    page.set_content(f"<style>{inspector._css}</style><div id=here></div>")
    start = "widget.render({model, el: document.querySelector('#here')})"
    page.add_script_tag(content=MODEL % json.dumps(data).replace("<", "\\u003c") + script + start)


@pytest.fixture
def page(inspector, session):
    opened = session.new_page(viewport={"width": 1300, "height": 900})
    requests = []
    opened.on("request", lambda request: requests.append(request.url))
    show(inspector, opened)
    yield opened
    assert requests == []
    opened.close()


def sent(page) -> list:
    return [message for message in page.evaluate("sent") if message[0] != "hello"]


def test_a_hostile_name_is_text(page):
    assert NAME in page.locator("h3").inner_text()
    assert page.locator("img").count() == 0
    assert page.title() == ""


def test_keys_grade_and_step_on(page):
    page.locator("[role=option]").first.focus()
    for key in "120x":
        page.keyboard.press(key)
    names = [f"toy{i:05d}" for i in range(2, 4)]
    assert sent(page) == [
        ["grade", NAME, "A"],
        ["grade", "J1", "B"],
        ["grade", names[0], "X"],
        ["label", names[1], ""],
    ]
    marks = page.locator("[role=option] b").all_inner_texts()[:4]
    assert marks == ["★A", "★B", "✕X", ""]


def test_a_note_is_sent_with_enter_and_keys_are_letters_in_it(page):
    page.locator("[role=option]").first.focus()
    page.keyboard.press("e")
    page.keyboard.type("lens? m")
    page.keyboard.press("Enter")
    assert sent(page) == [["note", NAME, "lens? m"]]
    page.keyboard.press("ArrowRight")
    assert page.locator("input[name=note]").input_value() == ""


def test_links_lead_away_in_a_page_of_their_own(page):
    links = page.locator(".links a")
    assert links.all_inner_texts() == ["Legacy", "hscMap", "Aladin", "SIMBAD"]
    for link in links.all():
        assert link.get_attribute("href").startswith("https://")
        assert "noopener" in link.get_attribute("rel")


def test_zoom_enlarges_pictures_and_scale_bar_within_their_frame(page):
    bar, frame = page.locator(".panels .bar").first, page.locator(".panels .frame").first
    before, width = bar.bounding_box()["width"], frame.bounding_box()["width"]
    page.locator("[role=option]").first.focus()
    page.keyboard.press("+")
    assert bar.bounding_box()["width"] == pytest.approx(2 * before, rel=0.01)
    assert page.locator(".panels canvas").first.bounding_box()["width"] == pytest.approx(2 * width, rel=0.01)
    assert frame.bounding_box()["width"] == width
    page.keyboard.press("-")
    assert bar.bounding_box()["width"] == pytest.approx(before)


def test_the_mosaic_has_ten_columns_and_labels_its_rest(page, inspector):
    page.locator("[role=option]").first.focus()
    for key in "md":
        page.keyboard.press(key)
    assert sent(page) == [["mosaic", True, 0], ["rest"]]
    inspector.mosaic()
    shown = {"page": inspector.page, "pixels": base64.b64encode(inspector.pixels).decode()}
    inspector.mosaic(False)
    page.evaluate(
        "(shown) => { model.set('pixels', new DataView(Uint8Array.from(atob(shown.pixels), "
        "(c) => c.charCodeAt(0)).buffer)); model.set('page', shown.page); }",
        shown,
    )
    tiles = [tile.bounding_box() for tile in page.locator("[role=option]").all()]
    assert len(tiles) == 100
    assert len({round(tile["x"]) for tile in tiles}) == 10
    assert len({round(tile["y"]) for tile in tiles}) == 10
