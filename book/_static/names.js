// The buttons that copy a block of code show their name as a tooltip only; a screen reader wants it too.
addEventListener("load", () => {
  for (const button of document.querySelectorAll("button.copybtn:not([aria-label])")) {
    button.setAttribute("aria-label", button.dataset.tooltip ?? "Copy");
  }
});
