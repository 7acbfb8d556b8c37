// The form, the link that carries it, and the answer beside it. Every change computes everything anew.

const $ = (id) => document.getElementById(id);
const CHOICES = { product: PRODUCTS, contract: CONTRACTS, algorithm: ALGORITHMS, implementation: IMPLEMENTATIONS, op: OPS };
const DEFAULTS = { product: "A3", contract: "auto", algorithm: ALGORITHMS[0], implementation: STOCK, op: "both" };
const OWN_FIELDS = { redundant: [0, LARGEST], have: HAVE };
const NUMBERS = { ...FIELDS, ...FLAGS, ...OWN_FIELDS };
const INITIAL = { shared_expert_num: 1, shared_expert_rank_num: 0, redundant: 0, spec_tokens: 0, serving_tp: 1, have: HAVE_DEFAULT };
let language = navigator.language.startsWith("zh") ? "zh" : "en";
const words = new Proxy({}, { get: (_, key) => WORDS[key]?.[language] ?? key });

function build() {
  for (const name of Object.keys(FLAGS)) {
    const field = document.createElement("div");
    field.className = "field";
    field.innerHTML = `<label for="${name}" data-t="${name}"></label><input id="${name}" inputmode="numeric">`;
    $("flags").append(field);
  }
  for (const [name, values] of Object.entries(CHOICES)) {
    $(name).replaceChildren(...values.map((value) => new Option(value, value)));
    $(name).value = DEFAULTS[name];
  }
  $("known").replaceChildren(new Option("", ""), ...Object.keys(MODELS).map((name) => new Option(name, name)));
  reset();
}

function reset() {
  for (const [name, value] of Object.entries(DEFAULTS)) $(name).value = value;
  for (const name of Object.keys(NUMBERS)) $(name).value = INITIAL[name] ?? "";
}

function translate() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  document.title = `HCCL_BUFFSIZE: ${words.title}`;
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = words[element.dataset.t];
  for (const name of Object.keys(CHOICES)) {
    for (const option of $(name).options) option.textContent = words[`${name} ${option.value}`];
  }
  $("known").options[0].textContent = words.choose;
  const other = language === "zh" ? "en" : "zh";
  $("language").textContent = WORDS.language[other];
  $("language").lang = other;
}

// Numbers of the form as BigInt by name, those that are empty left out; a field that holds none is marked.
function numbers() {
  const found = {};
  const wrong = [];
  for (const [name, [least, most]] of Object.entries(NUMBERS)) {
    const text = $(name).value.trim();
    const value = /^[0-9]{1,15}$/.test(text) ? BigInt(text) : null;
    const good = text === "" || (value !== null && value >= least && value <= most);
    $(name).setAttribute("aria-invalid", String(!good));
    if (!good) wrong.push(`${labelOf(name)}: ${least}..${most}`);
    else if (text !== "") found[name] = value;
    else if (INITIAL[name] !== undefined) found[name] = BigInt(INITIAL[name]);
  }
  return [found, wrong];
}

const labelOf = (name) => words[name].split(" (")[0];

function show() {
  const [given, wrong] = numbers();
  const flags = Object.fromEntries(Object.keys(FLAGS).filter((name) => name in given).map((name) => [name, given[name]]));
  const batch = derived(flags);
  $("max-bs-says").textContent = given.max_bs === undefined && batch ? `${batch[0]}: ${batch[1]}; ${batch[2]}` : "";
  if (given.max_bs === undefined && batch) given.max_bs = batch[0];
  if (given.moe_expert_num !== undefined) given.moe_expert_num += given.redundant ?? 0n;
  const missing = Object.keys(FIELDS).filter((name) => !(name in given));
  const ready = !wrong.length && !missing.length;
  $("missing").textContent = wrong.length
    ? `${words.wrong} ${wrong.join("; ")}`
    : missing.length
      ? `${words.missing} ${missing.map(labelOf).join(language === "zh" ? "、" : ", ")}`
      : "";
  const chosen = Object.fromEntries(Object.keys(CHOICES).map((name) => [name, $(name).value]));
  const answer = ready ? answerOf(chosen, given, given.have) : { violations: [] };
  showAnswer(answer, given);
  const link = linkOf();
  $("link").href = link;
  // Of a page that was opened from a file some browsers let no script change the address: the link is there to copy.
  try {
    history.replaceState(null, "", link);
  } catch {}
}

function showAnswer(answer, given) {
  const sized = answer.mb !== undefined;
  $("result").hidden = $("figure").hidden = !sized;
  if (sized) {
    $("mb").textContent = answer.mb;
    $("bytes").textContent = answer.bytes;
    $("formula").textContent = answer.formula;
    $("export").textContent = `export HCCL_BUFFSIZE=${answer.mb}`;
    $("largest").textContent = `${answer.largest} (${words.with} ${given.have} MB)`;
    $("memory").textContent = `${answer.memory} MB (${words.two_buffers})`;
    $("judged").textContent = `${answer.contract}, ${answer.path}`;
    const small = answer.fits || answer.errors ? "" : words.small;
    $("verdict").textContent = answer.fits ? `${words.fits} ${given.have} MB` : answer.errors ? words.refused : `${small} ${given.have} MB`;
    $("verdict").className = answer.fits ? "good" : "bad";
    list("remarks", answer.remarks, (remark) => [document.createTextNode(remark)]);
    $("plot").innerHTML = plotOf(answer, given.max_bs, given.have, words);
  }
  // On a phone the answer is below the form; what it says stands at the edge.
  $("strip").hidden = !sized && !answer.violations.length;
  $("strip").textContent = sized ? `${answer.mb} MB ${$("verdict").textContent} ↓` : `${words.broken} ↓`;
  $("broken").hidden = !answer.violations.length;
  list("violations", answer.violations, entryOf);
}

function entryOf(violation, item) {
  item.className = violation.level;
  Object.assign(item.dataset, violation);
  const head = document.createElement("b");
  head.textContent = `${violation.rule} ${words[violation.level]} ${violation.param}`;
  const parts = [head, document.createTextNode(`: ${violation.message}`)];
  if (STATEMENTS[violation.rule]) {
    const more = document.createElement("details");
    more.innerHTML = "<summary></summary><p></p>";
    more.firstChild.textContent = words.rule;
    more.lastChild.textContent = STATEMENTS[violation.rule];
    parts.push(more);
  }
  return parts;
}

function list(id, entries, partsOf) {
  $(id).replaceChildren(
    ...entries.map((entry) => {
      const item = document.createElement("li");
      item.append(...partsOf(entry, item));
      return item;
    }),
  );
}

// What differs from the start, as the part of the address behind the #.
function linkOf() {
  const changed = [...Object.entries(DEFAULTS), ...Object.keys(NUMBERS).map((name) => [name, INITIAL[name] ?? ""])]
    .filter(([name, value]) => $(name).value !== String(value))
    .map(([name]) => [name, $(name).value]);
  return `#${new URLSearchParams([...changed, ["lang", language]])}`;
}

function takeLink() {
  const carried = new URLSearchParams(location.hash.slice(1));
  reset();
  if (carried.get("lang") in WORDS.language) language = carried.get("lang");
  for (const [name, value] of carried) {
    if (name in NUMBERS || CHOICES[name]?.includes(value)) $(name).value = value;
  }
  for (const details of document.querySelectorAll("form details")) {
    const changed = [...details.querySelectorAll("input")].some((input) => input.value !== String(INITIAL[input.id] ?? ""));
    if (changed) details.open = true;
  }
  translate();
  show();
}

function takeConfig() {
  const text = $("config").value;
  let says = "";
  if (text.trim()) {
    try {
      const { hidden, topk, experts } = sizesOf(text);
      Object.entries({ hidden, topk, moe_expert_num: experts }).forEach(([name, { value }]) => ($(name).value = value));
      says = [hidden, topk, experts].map(({ key, value }) => `${key} = ${value}`).join(", ");
    } catch (problem) {
      if (!Array.isArray(problem)) throw problem;
      says = `${words[problem[0]]} ${problem[1]}`;
    }
  }
  $("config-says").textContent = says;
  show();
}

async function takeFile(file) {
  if (!file) return;
  $("config").value = file.size > CONFIG_MAX_BYTES ? "" : await file.text();
  takeConfig();
}

function takeModel() {
  const sizes = MODELS[$("known").value];
  if (sizes) Object.entries(sizes).forEach(([name, value]) => ($(name).value = value));
  $("known").value = "";
  show();
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = words.copied;
  } catch {
    window.prompt(words.copy, text);
  }
  setTimeout(() => (button.textContent = words[button.dataset.t]), 1500);
}

build();
takeLink();
$("form").addEventListener("submit", (event) => event.preventDefault());
$("form").addEventListener("input", (event) => {
  if (event.target.id === "config") takeConfig();
  else if (event.target.id === "known") takeModel();
  else if (event.target.id !== "file") show();
});
$("file").addEventListener("change", () => takeFile($("file").files[0]));
$("drop").addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").classList.add("over");
});
$("drop").addEventListener("dragleave", () => $("drop").classList.remove("over"));
$("drop").addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  if (event.dataTransfer.files.length) takeFile(event.dataTransfer.files[0]);
  else if (event.dataTransfer.getData("text")) {
    $("config").value = event.dataTransfer.getData("text");
    takeConfig();
  }
});
$("language").addEventListener("click", () => {
  language = language === "zh" ? "en" : "zh";
  translate();
  show();
});
$("strip").addEventListener("click", () => {
  $("answer").scrollIntoView();
  $("answer").focus({ preventScroll: true });
});
$("copy-export").addEventListener("click", () => copy($("export").textContent, $("copy-export")));
$("copy-link").addEventListener("click", () => copy($("link").href, $("copy-link")));
window.addEventListener("hashchange", takeLink);
