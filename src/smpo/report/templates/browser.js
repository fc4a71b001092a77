"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const field = id => document.getElementById(id);
const list = field("rows"), end = field("end"), PAGE = 24;
let matching = [], built = 0;

const element = (tag, name, text) => {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text !== undefined) node.textContent = text;
  return node;
};
const gap = row => row.s[+field("model").value][+field("scorer").value] - row.s[+field("other").value][+field("scorer").value];
const signed = value => (value > 0 ? "+" : value < 0 ? "\u2212" : "\u00b1") + Math.abs(value).toPrecision(3);

function tile(index, row, model) {
  const scorer = +field("scorer").value, figure = element("figure"), link = element("a"), image = element("img");
  link.href = row.f[model];
  image.src = "data:image/webp;base64," + data.thumbnails[index][model];
  image.alt = data.models[model] + ": " + row.p;
  link.append(image);
  const best = Math.max(...row.s.map(scores => scores[scorer])), least = Math.min(...row.s.map(scores => scores[scorer]));
  const caption = element("figcaption", row.s[model][scorer] === best && best > least ? "best" : "");
  caption.append(element("span", "name", data.models[model]), element("b", "", String(row.s[model][scorer])));
  const details = element("small", "", data.scorers.flatMap((name, i) => i === scorer ? [] : [name + " " + row.s[model][i]]).join(" \u00b7 "));
  figure.append(link, caption, details);
  return figure;
}

function article(index) {
  const row = data.rows[index], box = element("article"), head = element("header"), change = gap(row);
  head.append(element("p", "prompt", row.p));
  const facts = element("p", "facts-line");
  facts.append(element("span", change > 0 ? "up" : change < 0 ? "down" : "", signed(change)));
  facts.append(` image ${index}, seed ${row.e}` + (row.c ? `, ${row.c}` : ""));
  head.append(facts);
  const images = element("div", "images");
  images.append(...data.models.map((_, model) => tile(index, row, model)));
  box.append(head, images);
  return box;
}

function more() {
  const next = matching.slice(built, built + PAGE);
  built += next.length;
  list.append(...next.map(article));
}

function refresh() {
  const category = field("category") ? field("category").value : "", text = field("search").value.toLowerCase();
  matching = data.rows.map((_, i) => i).filter(i => (!category || data.rows[i].c === category) && data.rows[i].p.toLowerCase().includes(text));
  const key = { gain: i => -gap(data.rows[i]), loss: i => gap(data.rows[i]), size: i => -Math.abs(gap(data.rows[i])) }[field("order").value];
  if (key) matching.sort((a, b) => key(a) - key(b) || a - b);
  const wins = matching.filter(i => gap(data.rows[i]) > 0).length, losses = matching.filter(i => gap(data.rows[i]) < 0).length;
  field("count").textContent = `${matching.length.toLocaleString("en")} images: ${wins} won, ${losses} lost, ${matching.length - wins - losses} tied`;
  list.replaceChildren();
  built = 0;
  more();
  if (!matching.length) list.append(element("p", "caption", "No prompt matches; choose another category or search text."));
}

for (const control of ["scorer", "model", "other", "order", "category"]) if (field(control)) field(control).onchange = refresh;
field("search").oninput = refresh;
field("controls").onsubmit = event => event.preventDefault();
new IntersectionObserver(entries => { if (entries[0].isIntersecting) more(); }, { rootMargin: "900px" }).observe(end);
refresh();
