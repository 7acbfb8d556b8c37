// The sizes in a Hugging Face config.json, by the tables of ascend_moe/sizing/model.py.

// Throws [key of a text, details] where the text is no such file, lacks a size or names two.
function sizesOf(text) {
  const config = parsed(text);
  const sections = sectionsOf(config);
  const found = {};
  for (const [size, aliases] of Object.entries(ALIASES)) {
    if (size === "experts" && !valuesIn(sections, [...aliases, ...ALIASES.topk]).length) throw ["no_experts", ""];
    const latent = size === "hidden" ? valuesIn(sections, LATENT) : [];
    found[size] = one(latent.length ? latent : valuesIn(sections, aliases), aliases);
  }
  return found;
}

const isSection = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

// 8.0 is no integer, as in Python, though JavaScript cannot tell it from 8; where the browser shows the source, look.
const written = (key, value, context) =>
  typeof value === "number" && /[.eE]/.test(context?.source ?? "") ? context.source : value;

function parsed(text) {
  let config;
  try {
    config = JSON.parse(text, written);
  } catch (error) {
    throw ["not_json", error.message];
  }
  if (!isSection(config)) throw ["no_object", ""];
  return config;
}

// The part that describes the language model: a nested one wins over the top level.
function sectionsOf(config) {
  const inner = (sections, names) =>
    sections.flatMap(([prefix, section]) =>
      names.filter((name) => isSection(section[name])).map((name) => [`${prefix}${name}.`, section[name]]),
    );
  const nested = inner([["", config]], TEXT_MODELS);
  const deeper = inner(nested, TEXT_MODELS);
  const chosen = deeper.length ? deeper : nested.length ? nested : [["", config]];
  return [...chosen, ...inner(chosen, FEED_FORWARD)];
}

// [key, value] of what the sections say; a list of one value per layer counts as that value.
function valuesIn(sections, aliases) {
  const same = (list) => list.length && list.every((each) => JSON.stringify(each) === JSON.stringify(list[0]));
  return sections.flatMap(([prefix, section]) =>
    aliases
      .filter((alias) => section[alias] !== undefined && section[alias] !== null)
      .map((alias) => [prefix + alias, section[alias]])
      .map(([key, value]) => [key, Array.isArray(value) && same(value) ? value[0] : value]),
  );
}

function one(found, aliases) {
  if (!found.length) throw ["no_size", aliases.join(", ")];
  const shown = found.map(([key, value]) => `${key} = ${String(value).slice(0, 40)}`).join(", ");
  if (found.some(([, value]) => Array.isArray(value))) throw ["differs", shown];
  if (!found.every(([, value]) => Number.isSafeInteger(value))) throw ["no_integer", shown];
  if (new Set(found.map(([, value]) => value)).size > 1) throw ["ambiguous", shown];
  return { key: found[0][0], value: found[0][1] };
}
