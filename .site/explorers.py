"""The explorers of the site: the modules of nanodetr/explorers, and for each the numbers that they draw. No kernel, no server.

A page holds a frame and a small loader. The module and its numbers come when the reader scrolls near.
"""
import functools
import gzip
import json
from pathlib import Path

from nanodetr.data import ShapesDataset
from nanodetr.explorers import explore_boxes, explore_decoder_attention, explore_encoder_attention, explore_matching, explore_positions, explore_precision_recall, explore_replay, load_snapshots
from nanodetr.model import DETR

MODULES = Path(__file__).resolve().parent.parent / "nanodetr" / "explorers"
LIMIT = 400_000  # bytes that an explorer's numbers may take on their way, compressed as servers do it

TITLES = {
    "boxes": ("Try it here: which way does it pull?",
              "Drag the two boxes, or a corner of the one that has handles; the sliders and the arrow keys do the same. The arrows are the gradients: at the centre, the way in which "
              "the predicted box should move, and at its edges, how it should grow or shrink. Pull the boxes apart, and see which of the two measures still has arrows."),
    "encoder_attention": ("Try it here: where does a cell look?",
                          "A picture in the encoder of the trained <code>nano-shapes</code> model. Point at a cell of the feature map, press it, or focus the picture and use the "
                          "arrow keys. Each small map is one head of one layer: bright is where that cell looks. Then pad the canvas, and take the mask away."),
    "decoder_attention": ("Try it here: what does a query look at?",
                          "One query in the decoder of the trained <code>nano-shapes</code> model: its box, whom it listens to, and where each head of each layer looks. Press a box or a bar "
                          "to choose its query. Find two queries on the same object, leave out the one that wins, and see who takes its place."),
    "replay": ("Try it here: a training, replayed",
               "The <code>nano-shapes</code> model at eight moments of its training. Press play. Watch the boxes leave the middle, each query find its part of the picture, "
               "and the pairs settle. Press a dot to follow one query."),
    "matching": ("Try it here: who answers for what?",
                 "Rows are the queries of the trained <code>nano-shapes</code> model, columns the objects of a picture it has not seen. Drag the weights of the "
                 "three costs: both assignments are computed anew at every step. Solid frames are the pairs shown, dashed ones the other way's. Point at a cell, a row, "
                 "a column or a box, or use the arrow keys in the table. Look for weights with which greedy pays more."),
    "positions": ("Try it here: what makes a cell unlike its neighbours?",
                  "Press a cell of the map. The map shows how alike the codes of all other cells are to its code, and the curves show the same along its row and its column. "
                  "Then change the temperature, the size of the map, and whether positions are normalised."),
    "precision_recall": ("Try it here: what does a threshold change?",
                         "The <code>nano-shapes</code> model after four epochs, on a hundred validation scenes. Move the score threshold, or press a box or the curve to put it there: the point "
                         "moves along the curve, and the area stays. Then ask more of a hit, and the curve itself sinks."),
}


@functools.cache
def parts():
    "The trained model, its snapshots, and 400 validation scenes."
    return DETR.from_pretrained("nano-shapes"), load_snapshots(), ShapesDataset("val", n=400)


def explorer(kind: str):
    "(data, state) of the explorer `kind`."
    model, snapshots, val = parts()
    scenes = lambda numbers: [list(column) for column in zip(*(val[i] for i in numbers))]

    def young(count):
        images, targets = scenes(range(count))[0], [val.get_target(i) for i in range(count)]
        return dict(snapshots)[4].detect(images, threshold=0), targets, images

    make = {
        "boxes": lambda: explore_boxes(live="numbers"),
        "encoder_attention": lambda: explore_encoder_attention(model, scenes((0, 2))[0], live="numbers"),
        "decoder_attention": lambda: explore_decoder_attention(model, scenes((0, 2, 3))[0], live="numbers"),
        "matching": lambda: explore_matching(snapshots, *scenes((355, 213, 278, 224, 128, 3)), classes=val.classes, live="numbers"),
        "replay": lambda: explore_replay(snapshots, *scenes(range(100)), classes=val.classes, live="numbers"),
        "positions": lambda: explore_positions(live="numbers"),
        "precision_recall": lambda: explore_precision_recall(*young(100), val.classes, live="numbers")}
    return make[kind]()


@functools.cache
def numbers(kind: str) -> str:
    "The JSON that the page fetches: the explorer's data, and the state in which it opens."
    found = explorer(kind)
    text = json.dumps({"data": found.data, "state": found.state}, separators=(",", ":"))
    size = len(gzip.compress(text.encode()))
    if size > LIMIT: raise SystemExit(f"the numbers of the {kind} explorer take {size} bytes, more than {LIMIT}: take fewer pictures")
    return text


def markup(kind: str, page: str) -> str:
    "The explorer on the page `page` (such as 09_matching), as HTML without a blank line, which would end it in Markdown."
    title, words = TITLES[kind]
    assets = "../" * (page.count("/") + 1) + "assets/explorers/"
    return f"""<div class="explorer" id="{kind}-explorer" data-kind="{kind}" data-from="{assets}">
<p class="explorer-title">{title}</p>
<p>{words}</p>
<div class="explorer-place"><p class="explorer-wait">The explorer is loading.</p></div>
<script type="module" src="{assets}page.js"></script>
</div>"""


# finds the explorers of a page and starts each when it comes near
LOADER = """const start = async place => {
  const {kind, from} = place.dataset, slot = place.querySelector(".explorer-place"), at = new URL(from, location.href).href;
  try {
    const [module, told] = await Promise.all([import(`${at}${kind}.js`), fetch(`${at}${kind}.json`).then(answer => answer.json())]);
    slot.replaceChildren();
    await module.mount(slot, told.data, told.state);
    place.classList.add("ready");
  } catch (error) {
    slot.textContent = "The explorer could not be loaded. The saved figures show the same.";
    throw error;
  }
};
const near = new IntersectionObserver(seen => seen.forEach(({isIntersecting, target}) => { if (isIntersecting) near.unobserve(target), start(target); }), {rootMargin: "600px"});
document.querySelectorAll(".explorer[data-kind]").forEach(place => near.observe(place));
"""


def files(kinds) -> dict:
    "{name below assets/explorers: text} for these explorers."
    found = {"page.js": LOADER, "core.js": (MODULES / "core.js").read_text(encoding="utf-8")}
    for kind in kinds: found |= {f"{kind}.js": (MODULES / f"{kind}.js").read_text(encoding="utf-8"), f"{kind}.json": numbers(kind)}
    return found
