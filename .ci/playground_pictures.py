"""The pictures of the playground in nbs/images: playground.gif, which moves (README), and two still ones (site and notebook).

python .ci/playground_pictures.py     needs playwright, Chromium and onnx; a hand that follows a script moves the shapes
"""
import functools
import http.server
import io
import shutil
import sys
import tempfile
import threading
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / ".site")]
IMAGES, LIMIT = ROOT / "nbs" / "images", 2_000_000
# small on the picture, and yet to be told apart: they get a place in the palette
BRIGHT = ("#EB473D", "#F29933", "#EDDB40", "#59D959", "#4D80F2", "#C766F2", "#2678D1", "#E0660B", "#17915A", "#D42E72", "#7CE0FF", "#5D6779")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SETTLED = "(e => e && e.dataset.answers && e.dataset.idle === 'true')(document.querySelector('.ndx-playground'))"
POINTER = """const dot = document.createElement('div'); dot.style.cssText = 'position:fixed;width:16px;height:16px;border-radius:50%;background:rgba(255,255,255,.85);border:3px solid #1F2430;z-index:99;pointer-events:none;transform:translate(-50%,-50%);left:-50px';
document.body.append(dot); document.addEventListener('pointermove', e => { dot.style.left = e.clientX + 'px', dot.style.top = e.clientY + 'px'; }, true);"""


class Hand:
    "A pointer, and a picture after each of its moves."

    def __init__(self, page, top: float):
        self.page, self.top, self.frames, self.at = page, top, [], (5.0, 5.0)

    def shoot(self, milliseconds: int) -> None:
        self.page.wait_for_function(SETTLED)
        self.page.wait_for_timeout(60)
        png = self.page.screenshot(clip={"x": 0, "y": 0, "width": self.page.viewport_size["width"], "height": self.top})
        self.frames.append((Image.open(io.BytesIO(png)).convert("RGB"), milliseconds))

    def go(self, x: float, y: float, steps: int, milliseconds: int = 90) -> None:
        (a, b), self.at = self.at, (x, y)
        for k in range(1, steps + 1):
            t = k / steps
            t = t * t * (3 - 2 * t)
            self.page.mouse.move(a + (x - a) * t, b + (y - b) * t)
            self.shoot(milliseconds)

    def to(self, selector: str, steps: int = 4) -> None:
        box = self.page.locator(selector).bounding_box()
        self.go(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps)

    def drag(self, dx: float, dy: float, steps: int) -> None:
        self.page.mouse.down()
        self.go(self.at[0] + dx, self.at[1] + dy, steps)
        self.page.mouse.up()

    def press(self, selector: str, milliseconds: int = 1200) -> None:
        self.to(selector)
        self.page.mouse.click(*self.at)
        self.page.wait_for_timeout(450)  # the sentence waits for rest
        self.shoot(milliseconds)


def play(page, top: float) -> list:
    "A visitor's first half minute: (picture, milliseconds) pairs."
    hand = Hand(page, top)
    hand.shoot(900)
    hand.to("[data-thing='0']", 3)
    hand.drag(70, 95, 9)
    hand.to("[data-thing='1']", 3)
    hand.drag(-120, 20, 7)
    hand.press("[data-key=cut]", 1500)
    hand.press("[data-key=cut]", 300)
    hand.press("[data-key=mirrored]", 1600)
    hand.press("[data-key=mirrored]", 500)
    slider = page.locator("[data-key=stage]")
    for k in (2, 4, 5, 7):
        slider.evaluate("(input, k) => { input.value = k; input.dispatchEvent(new Event('input')); }", k)
        page.wait_for_timeout(450)
        hand.shoot(700)
    hand.frames[-1] = (hand.frames[-1][0], 1500)
    return hand.frames


def write_gif(frames: list, file: Path, width: int = 800) -> None:
    "One palette for all pictures, so that what stands still costs nothing."
    small = [picture.resize((width, round(picture.height * width / picture.width)), Image.LANCZOS) for picture, _ in frames]
    high, bar = small[0].height, 24
    sheet = Image.new("RGB", (width, high * 4 + bar * len(BRIGHT)))
    for k in range(4): sheet.paste(small[k * (len(small) - 1) // 3], (0, k * high))
    for k, colour in enumerate(BRIGHT): sheet.paste(colour, (0, 4 * high + bar * k, width, 4 * high + bar * (k + 1)))
    palette = sheet.quantize(144, method=Image.Quantize.MEDIANCUT)
    flat = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in small]
    flat[0].save(file, save_all=True, append_images=flat[1:], duration=[ms for _, ms in frames], loop=0, optimize=False)
    if file.stat().st_size > LIMIT: raise SystemExit(f"{file} has {file.stat().st_size} bytes, more than {LIMIT}: take fewer frames or a smaller width")


def main() -> int:
    import playground
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder:
        playground.write_alone(Path(folder))
        quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *args: None})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(quiet, directory=folder))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with sync_playwright() as p:
            browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
            for scheme, name in (("light", "playground.png"), ("dark", "playground_dark.png")):
                page = browser.new_context(viewport={"width": 1208, "height": 900}, color_scheme=scheme).new_page()
                page.goto(f"http://127.0.0.1:{server.server_address[1]}/index.html")
                page.wait_for_function(SETTLED, timeout=60_000)
                page.wait_for_timeout(600)
                box = page.locator(".ndp-below").bounding_box()
                page.evaluate("document.body.style.margin = '14px'")
                still = Image.open(io.BytesIO(page.screenshot(clip={"x": 14, "y": 10, "width": 1180, "height": box["y"] - 14})))
                still.convert("RGB").save(IMAGES / name, optimize=True)
                if scheme == "light":
                    page.evaluate(POINTER)
                    write_gif(play(page, box["y"] - 4), IMAGES / "playground.gif")
            browser.close()
        server.shutdown()
    for file in sorted(IMAGES.glob("playground*")): print(f"{file.relative_to(ROOT)}: {file.stat().st_size / 1e3:.0f} kB, {Image.open(file).size}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
