"""What a page must keep to on every screen, for tests in Chromium: nothing too wide, cut off or covered, and axe."""

from __future__ import annotations

from typing import Any

# Letters that are cut off by an element around them or by the screen, that lie on other letters, and buttons that
# something covers. What can be scrolled to is not cut off; an ellipsis and a menu that lies over the page are meant so.
_LOST = r"""() => {
  const room = 2; // pixels: letters of a line may reach out of their line
  const styles = new Map();
  const style = (e) => styles.get(e) ?? styles.set(e, getComputedStyle(e)).get(e);
  const shortened = (e) => style(e).textOverflow === "ellipsis" || style(e).webkitLineClamp !== "none";
  const hidden = (e) => style(e).clipPath === "inset(50%)"; // for screen readers alone
  const meant = (e) => e.closest("video, canvas, svg") || hidden(e) || shortened(e);
  const shown = (e) => e.checkVisibility({ visibilityProperty: true, opacityProperty: true });
  const own = (e) => [...e.childNodes].filter((n) => n.nodeType === Node.TEXT_NODE && n.data.trim());
  const found = [];
  const said = (e) => `${e.tagName.toLowerCase()}${e.id ? `#${e.id}` : ""} "${e.textContent.trim().slice(0, 40)}"`;
  const clipped = (e, box) => {
    let { left, right, top, bottom } = box;
    for (let around = e; around && around !== document.documentElement; around = around.parentElement) {
      const { overflowX, overflowY } = style(around);
      const edge = around.getBoundingClientRect();
      if (around === document.body) {
        if (overflowY === "hidden" && (top < -room || bottom > innerHeight + room)) return "the screen";
        continue;
      }
      if (overflowX !== "visible" || overflowY !== "visible") {
        if (["auto", "scroll"].includes(overflowX)) [left, right] = [edge.left, edge.right];
        if (["auto", "scroll"].includes(overflowY)) [top, bottom] = [edge.top, edge.bottom];
        if (left < edge.left - room || right > edge.right + room) return said(around);
        if (top < edge.top - room || bottom > edge.bottom + room) return said(around);
      }
      if (style(around).position === "fixed") break;
    }
    return left < -room || right > innerWidth + room ? "the side of the screen" : "";
  };
  const scrollerOf = (e) => {
    let around = e;
    while (around && !["auto", "scroll"].includes(style(around).overflowY)) around = around.parentElement;
    return around;
  };
  const seen = (box, scroller) => { // what of a box is not scrolled away
    if (!scroller) return box;
    const edge = scroller.getBoundingClientRect();
    const [top, bottom] = [Math.max(box.top, edge.top), Math.min(box.bottom, edge.bottom)];
    return { left: box.left, right: box.right, top, bottom, height: Math.max(1, bottom - top) };
  };
  // The box of a line is higher than its letters: the font keeps a fifth of it free above its capitals.
  const ink = (box) => {
    const { left, right, top, bottom, height } = box;
    return { left, right, top: top + 0.2 * height, bottom: bottom - 0.05 * height, height: 0.75 * height };
  };
  const letters = [];
  for (const e of document.body.querySelectorAll("*")) {
    if (!shown(e) || meant(e)) continue;
    for (const node of own(e)) {
      const range = document.createRange();
      range.selectNodeContents(node);
      const boxes = [...range.getClientRects()].filter((box) => box.width > 1 && box.height > 1);
      for (const box of boxes) {
        const by = clipped(e, box);
        if (by) found.push(`${said(e)} is cut off by ${by}`);
        letters.push([e, ink(box), scrollerOf(e)]);
      }
    }
  }
  const layer = (e) => e.closest("#languages, #hint, dialog, figcaption, .note");
  letters.forEach(([e, box, scroller], i) => letters.slice(i + 1).forEach(([other, its, itsScroller]) => {
    if (e === other || e.contains(other) || other.contains(e) || layer(e) !== layer(other)) return;
    const [a, b] = scroller === itsScroller ? [box, its] : [seen(box, scroller), seen(its, itsScroller)];
    const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (across > room && down > 0.3 * Math.min(a.height, b.height)) found.push(`${said(e)} lies on ${said(other)}`);
  }));
  const open = document.querySelector("dialog[open]");
  const menu = document.querySelector("#languages:not([hidden])");
  const at = [scrollX, scrollY];
  for (const button of document.querySelectorAll("button, a[href], select, input, textarea")) {
    if (!shown(button) || (open && !open.contains(button)) || button.offsetWidth < 3) continue;
    button.scrollIntoView({ block: "center", inline: "nearest", behavior: "instant" });
    const box = button.getBoundingClientRect();
    const hit = document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2);
    const label = button.closest("label");
    const free = hit && (button.contains(hit) || hit.contains(button) || label?.contains(hit) || menu?.contains(hit));
    if (!free) found.push(`${said(button)} cannot be reached: ${hit ? said(hit) : "off the screen"}`);
  }
  scrollTo(...at);
  for (const scroller of document.querySelectorAll("#panel")) scroller.scrollTop = 0;
  return [...new Set(found)];
}"""
_WIDE = """() => [...document.querySelectorAll("h1, p, button, figure, ul")]
    .filter((e) => e.offsetParent && e.scrollWidth > e.clientWidth + 1 && !e.classList.contains("sr"))
    .map((e) => e.id || e.textContent)"""
_SMALL = """() => [...document.querySelectorAll("button, .button")]
    .filter((b) => b.offsetParent && (b.offsetHeight < 44 || b.offsetWidth < 44)).map((b) => b.textContent)"""


def fits(page: Any) -> None:
    """Nothing is wider than the screen, and every button can be hit by a finger."""
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "it scrolls sideways"
    wide, small = page.evaluate(_WIDE), page.evaluate(_SMALL)
    assert not wide, f"too wide: {wide}"
    assert not small, f"a finger needs 44 pixels: {small}"


def nothing_lost(page: Any) -> None:
    """No letter is cut off, none lies on another, every button can be scrolled to, and nothing scrolls sideways."""
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "it scrolls sideways"
    lost = page.evaluate(_LOST)
    assert not lost, "; ".join(lost)


def seen_at_once(page: Any, *selectors: str) -> None:
    """Each of these is on the screen as a whole, without scrolling."""
    for selector in selectors:
        box = page.locator(selector).bounding_box()
        inside = """([selector, box]) => {
            const panel = document.querySelector(selector).closest("#panel")?.getBoundingClientRect();
            const bottom = Math.min(innerHeight, panel?.bottom ?? Infinity) + 1;
            return box.y >= -1 && box.x >= -1 && box.y + box.height <= bottom && box.x + box.width <= innerWidth + 1;
        }"""
        assert box is not None, selector
        assert page.evaluate(inside, [selector, box]), (selector, box)


def accessible(page: Any, *, contrast: bool) -> None:
    """No violation of WCAG 2 A and AA; with `contrast` also of AAA's contrast."""
    from axe_playwright_python.sync_playwright import Axe

    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    rules = {"color-contrast-enhanced": {"enabled": contrast}}
    found = Axe().run(page, options={"runOnly": {"type": "tag", "values": tags}, "rules": rules})
    assert found.violations_count == 0, found.generate_report()
