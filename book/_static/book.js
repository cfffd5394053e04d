// Two things the theme leaves undone for whoever works with the keyboard.

// It takes the focus off these buttons after a click: one would have to begin again at the top of the page.
function keepFocus() {
  const buttons = ".theme-switch-button, .search-button, .primary-toggle, .secondary-toggle";
  for (const button of document.querySelectorAll(buttons)) button.blur = () => {};
}

// It lets the arrow keys scroll wide code and tables, but not wide formulas.
function reachWideFormulas() {
  for (const formula of document.querySelectorAll("div.math")) {
    if (formula.scrollWidth > formula.clientWidth) formula.tabIndex = 0;
    else formula.removeAttribute("tabindex");
  }
}

document.addEventListener("DOMContentLoaded", keepFocus);
window.addEventListener("load", reachWideFormulas);
window.addEventListener("resize", reachWideFormulas);
