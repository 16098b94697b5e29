// A region that scrolls sideways must be reachable by keyboard and have a name.
// Whether it scrolls depends on the width of the window, so this is decided here and
// again after every change of width; without JavaScript the regions scroll all the same.
(() => {
  const names = [
    [".cell_output .text_html:has(figure)", "Figure"],
    [".cell_output .text_html:not(:has(figure)), .pst-scrollable-table-container", "Table"],
    ["div.math", "Formula"],
    ["pre", "Code or output"],
  ];
  const update = () => {
    for (const [selector, name] of names) {
      for (const region of document.querySelectorAll(selector)) {
        if (region.scrollWidth > region.clientWidth + 1) {
          region.tabIndex = 0;
          region.setAttribute("role", "group");
          region.setAttribute("aria-label", `${name}, scrolls sideways`);
        } else if (region.getAttribute("aria-label")?.endsWith("scrolls sideways")) {
          region.removeAttribute("tabindex");
          region.removeAttribute("role");
          region.removeAttribute("aria-label");
        }
      }
    }
  };
  update();
  window.addEventListener("load", update);
  window.addEventListener("resize", update);
  // A closed dropdown has no width: look again when one opens.
  document.addEventListener("toggle", update, true);
})();
