"""The page to step through as a user sees it: in a headless Chromium, by keyboard and by click, to the end."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn import nn
from tinygrad_rnn.see import publishing
from tinygrad_rnn.see.ledger import ledger
from tinygrad_rnn.see.look import lines
from tinygrad_rnn.see.player.trace import DIGITS, ENTRIES
from tinygrad_rnn.see.summary import summary
from tinygrad_rnn.see.words import printable

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e '.[browser]'")
pytestmark = pytest.mark.slow
HOSTILE = "</script><script>window.stolen=1</script>\"'\\ \n\u202e{\U0001f642}<img src=x onerror=window.stolen=2>שלום"
DESK, PHONE = {"width": 1400, "height": 900}, {"width": 360, "height": 740}


@contextmanager
def tabs(chromium, folder):
    """Opens players in tabs; at the end nothing but their own files was asked for, and nobody complained."""
    found = []

    def open_it(player, size=DESK, **options):
        options = {"reduced_motion": "reduce", **options}
        tab = chromium.new_context(viewport=size, **options).new_page()
        tab.asked, tab.said = [], []
        tab.on("request", lambda request: tab.asked.append(request.url))
        tab.on("console", lambda message: tab.said.append(message.text))
        tab.on("pageerror", lambda error: tab.said.append(str(error)))
        path = player.save(folder / f"page{len(found)}.html")
        tab.goto(path.as_uri())
        tab.wait_for_selector("html[data-ready]")
        found.append((tab, path.as_uri()))
        return tab

    try:
        yield open_it
        for tab, url in found:
            assert tab.asked == [url] and tab.said == []
    finally:
        for tab, _ in found:
            tab.context.close()


@pytest.fixture
def opened(chromium, tmp_path):
    with tabs(chromium, tmp_path) as open_it:
        yield open_it


def gru(steps=3):
    layer = nn.GRU(3, 4, fused=False, rng=np.random.default_rng(0))
    layer.cells[0].b.assign_(np.random.default_rng(3).standard_normal(12))
    x = tg.tensor(np.random.default_rng(1).standard_normal((steps, 2, 3)).astype(np.float32), name="x")
    output, _ = layer(x)
    loss = (output * output).sum()
    loss.name = "loss"
    return loss, layer


def spelled(array):
    """The numbers of an array as the page writes them: rounded, with a minus sign."""
    found = [float(f"{n:.{DIGITS}g}") for n in np.ravel(array).tolist()]
    return [f"{n + 0:.{DIGITS}g}" for n in found]


def read(texts):
    """Numbers in the page, as Python spells them."""
    return [f"{float(text.replace(chr(0x2212), '-')) + 0:.{DIGITS}g}" for text in texts]


def told(array):
    """A summary as the table shows it."""
    return str(summary(array)).replace("-", "\u2212").replace("e\u2212", "e-")


NOW = """() => ({
    phase: document.body.dataset.phase, node: document.querySelector("#rows tr.now").dataset.node,
    arrays: [...document.querySelectorAll("#step > .arrays .matrix")].map(
        (table) => [...table.querySelectorAll("td")].map((cell) => cell.textContent)),
    cards: [...document.querySelectorAll("#step article")].map((card) => ({
        to: card.querySelector("[data-jump]").dataset.jump,
        last: [...card.querySelector(".matrix:is(.pair:last-child *, .arrays > :last-child *)").querySelectorAll("td")]
            .map((cell) => cell.textContent)})),
    sums: Object.fromEntries([...document.querySelectorAll("#rows tr")].map(
        (row) => [row.dataset.node, row.lastElementChild.textContent])),
    lit: [...document.querySelectorAll(".node.now")].map((box) => box.id),
})"""


def walks_to_the_end(tab, y, forth):
    """Step from the first to the last step, and hold every value, gradient and sum against the engine.

    forth: takes one step on.
    """
    book = ledger([y])
    tensors = {f"n{i}": t for i, t in enumerate(book.tensors[::-1])}
    order = [*tensors, *[id for id in reversed(tensors) if tensors[id].requires_grad]]
    before: dict[str, object] = {f"n{len(tensors) - 1}": np.ones((), np.float32)}
    running = {(c.consumer.age, c.x.age): after for t in book.tensors for c, _, after in book.running(t)}
    for step, id in enumerate(order):
        forth(step)
        now, t = tab.evaluate(NOW), tensors[id]
        assert now["node"] == id and now["phase"] == ("forward" if step < len(tensors) else "backward")
        assert any(box.endswith(f"-{id}") for box in now["lit"]) or not now["lit"]
        wanted = t.numpy() if step < len(tensors) else tg.pullback(y, [t])[0].numpy()
        if wanted.size <= ENTRIES:
            shown = now["arrays"][-1] if step < len(tensors) else now["arrays"][0]
            assert read(shown) == spelled(wanted), (id, now["phase"])
        if now["phase"] == "backward":
            before[id] = wanted
            for card in now["cards"]:
                x = tensors[card["to"]]
                before[card["to"]] = running[t.age, x.age]
            last = {card["to"]: card["last"] for card in now["cards"]}
            for to, cells in last.items():
                if tensors[to].size <= ENTRIES:
                    assert read(cells) == spelled(running[t.age, tensors[to].age])
            for other, sum in before.items():
                if other in now["sums"] and other != f"n{len(tensors) - 1}":
                    assert now["sums"][other] == told(sum), "the table follows"
    y.backward()
    sums = tab.evaluate(NOW)["sums"]
    leaves = {id: t for id, t in tensors.items() if t.op is None and t.requires_grad}
    assert leaves and all(sums[id] == told(t.grad._array) for id, t in leaves.items())


def test_a_gru_by_keyboard(opened, shots):
    y, _ = gru()
    tab = opened(tg.play(y))
    tab.screenshot(path=shots / "start.png")
    walks_to_the_end(tab, y, lambda step: tab.keyboard.press("ArrowRight"))
    tab.screenshot(path=shots / "end.png")
    tab.keyboard.press("ArrowRight")
    assert tab.evaluate("document.body.dataset.step") == tab.get_attribute("#scrub", "max")
    tab.keyboard.press("ArrowLeft")
    tab.keyboard.press("Home")
    assert tab.evaluate("document.body.dataset.step") == "0"
    tab.keyboard.press("End")
    assert tab.get_attribute("#scrub", "aria-valuetext").split(" of ")[0] == tab.get_attribute("#scrub", "max")


def test_a_small_computation_by_click(opened, shots):
    x, w = tg.tensor(3.0, requires_grad=True, name="x"), tg.tensor(-2.0, requires_grad=True, name="w")
    y = tg.tanh(x * w) + x * w * x
    tab = opened(tg.play(y), color_scheme="dark")
    walks_to_the_end(tab, y, lambda step: tab.click("#next"))
    tab.screenshot(path=shots / "dark.png")
    dark = tab.evaluate("getComputedStyle(document.querySelector('#panel')).backgroundColor")
    assert max(map(int, dark.removeprefix("rgb(").rstrip(")").split(","))) < 60


def test_a_click_jumps_and_a_second_one_turns_round(opened):
    x = tg.tensor([3.0, 4.0], requires_grad=True, name="x")
    y = (tg.sin(x) * x).sum()
    tab = opened(tg.play(y))
    tab.click("#top-n1")
    now = tab.evaluate(NOW)
    assert (now["node"], now["phase"]) == ("n1", "forward")
    tab.click("#top-n1")
    assert tab.evaluate(NOW)["phase"] == "backward"
    tab.click("#rows tr[data-node=n0] td:nth-child(3)")
    now = tab.evaluate(NOW)
    assert (now["node"], now["phase"]) == ("n0", "backward")
    tab.click("#rows tr[data-node=n0] button")
    assert tab.evaluate(NOW)["phase"] == "forward"
    tab.click("#rows tr[data-node=n1] button")
    tab.click("#step [data-index='1']")
    line = tab.inner_text("#step .numbers")
    assert "[1]" in line and "4" in line and "\u22120.7568" in line


def test_time_steps_open_and_close(opened):
    y, _ = gru()
    tab = opened(tg.play(y))
    shown = "[...document.querySelectorAll('#open > .picture')].map((picture) => picture.dataset.part)"
    assert tab.evaluate(shown) == []
    tab.click("#top-b3")
    assert tab.evaluate(shown) == ["b3"]
    tab.click("#parts button:last-child")
    assert tab.evaluate(shown) == ["b3", "b4"]
    tab.click("#b3-n41")  # the first product of step 1
    assert tab.evaluate(shown) == ["b3", "b4"] and tab.evaluate(NOW)["lit"] == ["top-b3", "b3-n41"]
    for _ in range(20):
        tab.keyboard.press("ArrowRight")
    for _ in range(40):
        tab.keyboard.press("ArrowLeft")
    assert tab.evaluate(shown) == ["b2", "b3", "b4"], "stepping opens what it needs, and leaves what a user opened"
    tab.keyboard.press("Home")
    assert tab.evaluate(shown) == ["b3", "b4"]
    assert tab.get_attribute("#parts button:last-child", "aria-expanded") == "true"


def test_each_picture_has_its_own_ids_and_texts(opened):
    player = tg.play(gru(5)[0])
    tab = opened(player)
    for chip in tab.query_selector_all("#parts button"):
        chip.click()
    shown = tab.evaluate("""Object.fromEntries([...document.querySelectorAll("#open .node")].map(
        (box) => [box.id, [...box.querySelectorAll("text")].map((text) => text.textContent)]))""")
    wanted = {
        f"{part.id}-{node.id}": [printable(line.text) for line in lines(node)]
        for part in player.parts[1:] for node in player._named(part.graph).nodes if not node.listed
    }  # fmt: skip
    assert shown == wanted
    arrows = tab.evaluate("[...document.querySelectorAll('#open .edge')].map((arrow) => arrow.id)")
    assert set(arrows) == {f"{part.id}-{edge.id}" for part in player.parts[1:] for edge in part.graph.edges}


def test_all_stubs_of_a_weight_light_up_together(opened):
    y, _ = gru()
    player = tg.play(y)
    tab = opened(player)
    for chip in tab.query_selector_all("#parts button"):
        chip.click()
    weight = next(node["id"] for node in player.trace.data["nodes"] if node["name"] == "U_z")
    tab.click(f"#rows tr[data-node={weight}] button")
    lit = tab.evaluate(NOW)["lit"]
    assert len(lit) == 1 + 3 and all(f"-{weight}" in id for id in lit)


def test_names_of_any_letters(opened, shots):
    x = tg.tensor([1.0, 2.0], requires_grad=True, name=HOSTILE)
    y = (x * x).sum()
    y.name = HOSTILE + "2"
    tab = opened(tg.play(y, title=HOSTILE))
    tab.keyboard.press("End")
    tab.screenshot(path=shots / "names.png")
    shown = printable(HOSTILE)
    for where in ("h1", "#rows tr:first-child th", "#said", "#step h2", "#top-n0 .name"):
        assert shown in tab.text_content(where).replace("\xa0", " "), where
    assert tab.title().split() == shown.split()
    assert tab.evaluate("window.stolen === undefined && document.images.length === 0")


def test_what_is_not_a_number_and_what_has_no_gradient(opened, shots):
    x, c = tg.tensor([0.0, 1.0], requires_grad=True, name="x"), tg.tensor([1.0, np.inf], name="c")
    y = (tg.sqrt(x) * c * (x * 2.0).detach()).sum()
    tab = opened(tg.play(y))
    tab.keyboard.press("End")
    table = {
        row.query_selector("th").inner_text(): row.query_selector_all("td")
        for row in tab.query_selector_all("#rows tr")
    }
    assert table["c"][1].inner_text() == "1, inf" and table["c"][3].inner_text() == "constant"
    assert "nan" in table["x"][3].inner_text() or "inf" in table["x"][3].inner_text()
    assert any(cells[3].inner_text() == "\u2225 detached" for cells in table.values())
    assert tab.query_selector("#step .matrix .odd")
    tab.screenshot(path=shots / "nan.png")


AS_PYTHON = """() => {
    const spelled = (part) => {
        const inner = [...part.children].map(spelled);
        if (part.localName === "mfrac") return `((${inner[0]})/(${inner[1]}))`;
        if (part.localName === "msup") return `(${inner[0]})**(${inner[1]})`;
        if (part.localName === "msqrt") return `sqrt(${inner.join("")})`;
        return inner.length ? inner.join("") : part.textContent;
    };
    return [...document.querySelectorAll("#step .numbers math")].map(spelled);
}"""
"""The formulas with numbers as a reader of mathematics takes them, where digits side by side are one number."""
KNOWN = {
    "where": lambda condition, a, b: a if condition else b, "exp": np.exp, "sqrt": np.sqrt, "sin": np.sin,
    "cos": np.cos, "tanh": np.tanh, "ln": np.log, "σ": lambda x: 1 / (1 + np.exp(-x)), "e": np.e,
    "true": True, "false": False,
}  # fmt: skip


def evaluated(formula):
    """What a formula of the page comes to."""
    try:
        return eval(formula, {"__builtins__": {}}, KNOWN)
    except (SyntaxError, TypeError) as error:
        raise AssertionError(f"no formula of numbers: {formula}") from error


def test_formulas_with_numbers_are_true(opened):
    x = tg.tensor([-1.75, 2.0, 3.0], requires_grad=True, name="x")
    w = tg.tensor([[4.0], [-0.5]], requires_grad=True, name="w")
    y = tg.where(x > 1.5, x * 2, -3.5 * x) + x**2 + x**3 / w - x / 4 + 2 / x + tg.exp(-2.0 * x) * (x - 1.0) * w
    y = y + tg.tanh(x * w) * -0.25 + 3 * tg.sigmoid(-x) + tg.sqrt(w * w) + 7 * tg.sin(3 * x)
    tab = opened(tg.play(y.sum()))
    found = 0
    for step in range(1, int(tab.get_attribute("#scrub", "max")) + 1):
        for entry in ("2", "0,0", "1,1"):
            tab.evaluate("([step, entry]) => { picked = entry.split(',').map(Number); go(step); }", [step, entry])
            for line in tab.evaluate(AS_PYTHON):
                formula, _, right = line.translate({0x2212: "-", 0xB7: "*", 0x2299: "*"}).rpartition("=")
                assert evaluated(formula) == pytest.approx(evaluated(right), rel=5e-3, abs=5e-3), line
                found += 1
    assert found > 100


def test_what_was_overwritten_is_said_and_not_computed_with(opened, shots):
    v = tg.tensor([3.0, 1.0], requires_grad=True, name="v")
    w = tg.tensor([1.0, 2.0], requires_grad=True, name="w")
    early = v * w
    y = early.sum() + v.sum()
    w.assign_([5.0, 6.0])
    late = y * w
    early.name, late.name = "early", "late"
    tab = opened(tg.play(late.sum()))
    names = tab.evaluate("Object.fromEntries(data.nodes.map((each) => [each.name, forwardAt.get(each.id)]))")
    texts = {}
    for step in range(1, int(tab.get_attribute("#scrub", "max")) + 1):
        tab.evaluate("go", step)
        texts[step] = tab.inner_text("#step")
        tab.screenshot(path=shots / f"stale{step}.png")
    said = {step for step, text in texts.items() if "other numbers since" in text}
    assert {names["w"], names["early"]} <= said and names["v"] not in said and names["late"] not in said
    assert "entry" not in texts[names["early"]] and "entry" in texts[names["late"]]
    assert "now 5, 6" in tab.inner_text("#rows")
    lost = [text for text in texts.values() if "lost" in text and "backward() adds this" in text]
    assert not lost and any("It was given, so nothing goes on from here." in text for text in texts.values())


COLOURS = """() => {
    const style = (each) => getComputedStyle(each);
    return [...document.querySelectorAll(".node:not(.seen)")].flatMap((box) => [...box.querySelectorAll("text")]
        .filter((text) => style(text).visibility === "visible")
        .map((text) => [style(text).fill, style(text).opacity * style(text).fillOpacity, style(box).opacity,
            style(box.querySelector(".box")).fill, style(box.querySelector(".box")).fillOpacity,
            style(document.querySelector("#pictures")).backgroundColor]));
}"""


def luminance(colour):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in np.asarray(colour) / 255]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_not_computed_yet_can_be_read(opened, shots, scheme):
    tab = opened(tg.play(gru()[0]), color_scheme=scheme)
    for chip in tab.query_selector_all("#parts button"):
        chip.click()
    found = tab.evaluate(COLOURS)
    assert len({box for _, _, _, box, *_ in found}) >= 5, "boxes of several colours"
    for text, clear, all_clear, box, filled, paper in found:
        text, box, paper = (np.array([float(c) for c in each[4:-1].split(",")]) for each in (text, box, paper))
        behind = paper + float(filled) * (box - paper)
        letter = behind + float(clear) * (text - behind)
        lit = [luminance(paper + float(all_clear) * (each - paper)) for each in (letter, behind)]
        assert (max(lit) + 0.05) / (min(lit) + 0.05) >= 4.5, "the contrast that WCAG 2 asks for in 1.4.3"
    tab.evaluate("go(60)")
    seen, unseen = (
        tab.evaluate(f"getComputedStyle(document.querySelector('.node{which}.operation > .box')).fillOpacity")
        for which in (".seen", ":not(.seen)")
    )
    assert float(seen) == 1 and float(unseen) < 0.5, "and yet it looks different"
    tab.screenshot(path=shots / f"unseen-{scheme}.png")


def test_minus_infinity_stands_in_parentheses_too(opened):
    x = tg.tensor([-np.inf, 1e-9], requires_grad=True, name="x")
    tab = opened(tg.play((2 * x).sum()))
    tab.evaluate("go(2)")
    assert tab.evaluate(AS_PYTHON) == ["2·(−inf)=−inf"]
    tab.evaluate("picked = [1]; show(false)")
    assert tab.evaluate(AS_PYTHON) == ["2·1e-9=2e-9"]


def test_on_a_phone_nothing_is_wider_than_the_page(opened, shots):
    y, _ = gru()
    tab = opened(tg.play(y), PHONE, device_scale_factor=2)
    for step in (0, 40, 110):
        tab.evaluate("step => go(step)", step)
        assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        tab.screenshot(path=shots / f"phone{step}.png")
    lefts = tab.evaluate(
        "[...document.querySelectorAll('main > section')].map((each) => each.getBoundingClientRect().left)"
    )
    assert len(set(lefts)) == 1, "one column"


def test_a_screen_reader_hears_each_step_and_play_is_quiet(opened):
    x = tg.tensor(3.0, requires_grad=True, name="x")
    tab = opened(tg.play(x * x))
    live = "#said[aria-live=polite]"
    tab.keyboard.press("ArrowRight")
    assert tab.inner_text(live) == "Step 1 of 4, forward: x is given, which is 3."
    tab.evaluate("go(3)")
    assert tab.inner_text(live) == "Step 3 of 4, backward: the gradient of v1 is complete, 1; it goes on to x, twice."
    tab.keyboard.press("End")
    assert tab.inner_text(live) == "Step 4 of 4, backward: the gradient of x is complete, 6; it ends here."
    tab.select_option("#speed", "16")
    tab.evaluate("document.activeElement.blur()")
    tab.keyboard.press(" ")
    assert tab.get_attribute("#said", "aria-live") == "off" and "pause" in tab.inner_text("#play")
    tab.wait_for_selector("body[data-step='4']")
    tab.wait_for_selector(live)
    names = tab.evaluate(
        "[...document.querySelectorAll('button, input, select')].map((each) => each.ariaLabel || each.innerText)"
    )
    assert all(names), "every control has a name"
    tab.focus("#scrub")
    tab.keyboard.press("ArrowLeft")
    assert tab.evaluate("document.body.dataset.step") == "3"


def test_motion_stops_for_those_who_ask(opened):
    x = tg.tensor(3.0, requires_grad=True, name="x")
    animated = "getComputedStyle(document.querySelector('.back > .line')).animationName"
    for motion, name in (("reduce", "none"), ("no-preference", "flow")):
        tab = opened(tg.play(x * x), reduced_motion=motion)
        tab.evaluate("go(3)")
        assert tab.evaluate(animated) == name


def mended(monkeypatch, name, old, new):
    """Exchange a piece of a file of the page, wherever it occurs in it."""
    asset = publishing.asset

    def changed(wanted):
        text = asset(wanted)
        assert wanted != name or old in text, f"{name} no longer has {old!r}: choose another way to break it"
        return text.replace(old, new) if wanted == name else text

    monkeypatch.setattr(publishing, "asset", changed)


def run(check, chromium, folder):
    with tabs(chromium, folder) as opened:
        check(opened, *[folder] * (check.__code__.co_argcount - 1))


BROKEN = [
    ("player.js", "sum = part.after", "sum = part.added", test_a_small_computation_by_click),
    ("player.js", 'matrix(part.after, "after")', 'matrix(part.added, "after")', test_a_small_computation_by_click),
    ("player.js", "matrix(step.gradient,", "matrix(of.value,", test_a_small_computation_by_click),
    ("player.js", "at === there ? back : there", "there", test_a_click_jumps_and_a_second_one_turns_round),
    ("formulas.js", "made.append(...children", "made.innerHTML = children.join(''); made.append(...children",
     test_names_of_any_letters),
    ("player.js", "box.dataset.of || box.id", "box.id", test_all_stubs_of_a_weight_light_up_together),
    ("player.js", "openedBySteps !== part", "false", test_time_steps_open_and_close),
    ("player.js", '"aria-live", "off"', '"aria-live", "polite"',
     test_a_screen_reader_hears_each_step_and_play_is_quiet),
    ("formulas.js", 'if (stale(of).length) return "";', "", test_what_was_overwritten_is_said_and_not_computed_with),
    ("player.js", 'step.gradient === null ? "."', 'false ? "."',
     test_what_was_overwritten_is_said_and_not_computed_with),
    ("formulas.js", "multiplied(formula);", "", test_formulas_with_numbers_are_true),
    ("formulas.js", '|| n === "-inf"', "", test_minus_infinity_stands_in_parentheses_too),
    ("formulas.js", "n < 0 ||", "", test_formulas_with_numbers_are_true),
    ("player.js", "text === HOLE", "false", test_each_picture_has_its_own_ids_and_texts),
    ("player.js", "(often.get(to) || 0) + 1", "1", test_a_screen_reader_hears_each_step_and_play_is_quiet),
    ("player.css", "opacity:.86", "opacity:.38",
     lambda opened, shots: test_what_is_not_computed_yet_can_be_read(opened, shots, "light")),
    ("player.css", "overflow-wrap:anywhere", "white-space:nowrap", test_on_a_phone_nothing_is_wider_than_the_page),
    ("player.css", "animation:none", "", test_motion_stops_for_those_who_ask),
]  # fmt: skip


@pytest.mark.parametrize(("name", "old", "new", "check"), BROKEN)
def test_a_page_that_breaks_a_promise_is_caught(name, old, new, check, chromium, tmp_path, monkeypatch):
    mended(monkeypatch, name, old, old)
    run(check, chromium, tmp_path)
    mended(monkeypatch, name, old, new)
    with pytest.raises((AssertionError, playwright.Error)):
        run(check, chromium, tmp_path)
