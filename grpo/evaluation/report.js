"use strict";
const form = document.getElementById("filter"), list = document.getElementById("questions");
if (form && list) {
  const all = [...list.children], words = new Map(all.map(each => [each, each.textContent.toLowerCase()]));
  const numeric = new Intl.Collator(undefined, {numeric: true});
  const update = () => {
    const show = form.elements.show.value, sort = form.elements.sort.value, find = form.elements.find.value.toLowerCase();
    const shown = all.filter(each => {
      const {right, wrong, cut} = each.dataset;
      const asked = {all: true, wrong: wrong === "1", right: right !== "" && Number(right) > 0, cut: cut === "1"}[show];
      each.hidden = !(asked && words.get(each).includes(find));
      return !each.hidden;
    });
    const by = (a, b) => numeric.compare(a.dataset[sort], b.dataset[sort]) || a.dataset.number - b.dataset.number;
    list.append(...[...all].sort(sort === "reward" || sort === "right" ?
      (a, b) => a.dataset[sort] - b.dataset[sort] || a.dataset.number - b.dataset.number : by));
    form.querySelector("output").textContent = `${shown.length} of ${all.length}`;
  };
  form.addEventListener("input", update);
  form.addEventListener("submit", event => event.preventDefault());
  form.hidden = false;
  update();
}
