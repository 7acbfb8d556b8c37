// An answer from choices and sizes. What is computed here comes out of FUNCTIONS alone; this file only looks up which.

// Division as Python's: towards minus infinity.
const div = (a, b) => a / b - BigInt(a % b !== 0n && a < 0n !== b < 0n);
const mod = (a, b) => a - b * div(a, b);
const up = (a, b) => -div(-a, b);

const run = (index, fields) => (index === null ? null : FUNCTIONS[index](fields));

function answerOf(chosen, sizes, have) {
  const contract = chosen.contract === "auto" ? AUTO[chosen.algorithm] : chosen.contract;
  const judged = JUDGED[contract];
  const place = `${chosen.product} ${judged} ${chosen.algorithm}`;
  const broken = RULES[place].flatMap((index) => run(index, sizes));
  if (chosen.implementation === STOCK) {
    broken.push(...(run(DEFECTS[`${chosen.product} ${contract} ${chosen.algorithm} ${chosen.op}`], sizes) ?? []));
  }
  const violations = broken.map(([rule, level, param, message]) => ({ rule, level, param, message }));
  const fatal = violations.filter((violation) => SIZE_RULES.includes(violation.rule));
  const traffic = run(TRAFFIC[place], sizes);
  if (fatal.length || traffic === null) {
    return { contract, violations: fatal.length ? fatal : violations };
  }
  const [path, ...values] = traffic;
  const sent = Object.fromEntries(TRAFFIC_FIELDS.map((name, index) => [name, values[index]]));
  const formula = FORMULAS[`${chosen.product} ${judged} ${path} ${chosen.op} ${chosen.implementation}`];

  const megabytes = (bytes) => run(MEGABYTES[chosen.product], { bytes });
  const needed = (more) => run(formula, { ...sent, ...more });
  const [bytes, text] = needed({});
  const mb = megabytes(bytes);
  const literal = megabytes(needed({ shared_experts: sizes.shared_expert_num })[0]);
  const differs = literal !== mb && chosen.implementation === STOCK;
  const fits = (more, available) => needed(more)[0] <= available * MB;
  const errors = violations.some((violation) => violation.level === "error");
  const batchMax = BigInt(BATCH_MAX[`${chosen.product} ${judged} ${path}`]);
  return {
    contract,
    path,
    violations,
    bytes,
    mb,
    formula: text,
    batchMax,
    errors,
    fits: fits({}, have) && have >= megabytes(1n) && !errors,
    memory: run(MEMORY, { mb }),
    largest: largest(batchMax, (max_bs) => fits({ max_bs }, have)),
    remarks: run(REMARKS[`${chosen.product} ${chosen.implementation} ${differs}`.toLowerCase()], {
      bytes,
      mb,
      literal_mb: literal,
    }) ?? [],
    megabytesAt: (max_bs) => megabytes(needed({ max_bs })[0]),
  };
}

// The largest number up to `high` for which it holds, 0 if for none; more tokens never need less.
function largest(high, holds) {
  let low = 0n;
  while (low < high) {
    const middle = (low + high + 1n) / 2n;
    if (holds(middle)) low = middle;
    else high = middle - 1n;
  }
  return low;
}

// max_bs out of the serving flags that are given; null if none of them says how many tokens there are.
function derived(flags) {
  const given = OPTIONAL_FLAGS.filter((name) => flags[name] !== undefined);
  const index = SERVING[given.join(" ")];
  return index === undefined ? null : run(index, { spec_tokens: 0n, serving_tp: 1n, ...flags });
}
