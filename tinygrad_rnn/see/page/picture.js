// A picture of a computation in a page: every stub of a value lights up with the value, wherever it is.
"use strict";

for (const picture of document.querySelectorAll("svg.tg")) {
  const family = (node) => {
    const id = node.dataset.of ?? node.id;
    return picture.querySelectorAll(`[id="${CSS.escape(id)}"], [data-of="${CSS.escape(id)}"]`);
  };
  const light = (event, on) => {
    const node = event.target.closest("g.node");
    if (node) for (const each of family(node)) each.classList.toggle("lit", on);
  };
  picture.addEventListener("pointerover", (event) => light(event, true));
  picture.addEventListener("pointerout", (event) => light(event, false));
}
