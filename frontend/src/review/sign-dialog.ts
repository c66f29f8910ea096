/** Signing: what will be signed in words, the meaning, the password. Nothing is signed that was not shown. */

import { openDialog } from "../dialog";
import { h } from "../dom";
import { ApiError, getJson, postJson, inWords } from "../http";
import { millimetres } from "../numbers";
import { signedAiWords, type SignedAi } from "./ai-words";
import { CALLS, type CallValue } from "./types";

interface ManifestCall {
  stage: "unaided" | "final";
  value: CallValue;
  label?: string;
  reason: string;
}

interface ManifestRead {
  protocol: string;
  locked_at: string | null;
  ai_revealed_at: string | null;
  ai: SignedAi | null;
  calls: ManifestCall[];
  marks: { longest_diameter_mm: number | null; removed_at: string | null }[];
  decisions: { lesion: string; verdict: string }[];
}

interface Manifest {
  software_version: string;
  case: { accession: string };
  signer: { printed_name: string };
  slides: { name: string; node: string | null; state: string; read: ManifestRead | null }[];
  node_table: {
    rows: { node: string; slides: number; result: string | null; positive: boolean | null; largest_mm: number | null; note: string }[];
    examined: number;
    positive: number;
    suggestion: string | null;
    rule: string;
  };
}

interface Shown {
  manifest: Manifest;
  manifest_sha256: string;
  meanings: { value: string; label: string }[];
}

interface Difference {
  where: string;
  before: unknown;
  now: unknown;
}

export interface Signed {
  printed_name: string;
  local_time: string;
  meaning: string;
  manifest_sha256: string;
  report_url: string;
}

/** Resolves with the signature, or null when nothing was signed. */
export async function signCase(caseId: string): Promise<Signed | null> {
  const url = `/api/cases/${caseId}/`;
  let shown = await getJson<Shown>(`${url}manifest/`);
  const manifestPlace = h("div", {});
  const changes = h("div", {});
  const problem = h("p", { class: "field-error", role: "alert", hidden: true });
  const meaning = h("select", { id: "sign-meaning", required: true });
  const password = h("input", { id: "sign-password", type: "password", required: true, autocomplete: "current-password" });
  const submit = h("button", { type: "submit", class: "button primary" }, "Sign");
  const form = h(
    "form",
    { class: "form" },
    h("div", { class: "field" }, h("label", { for: meaning.id }, "Meaning of your signature"), meaning),
    h("div", { class: "field" }, h("label", { for: password.id }, "Your password"), password),
    problem,
  );
  const { dialog, closed } = openDialog("Sign this case", [changes, manifestPlace, form], true);
  const cancel = h("button", { type: "button", class: "button", onclick: () => dialog.close("") }, "Do not sign");
  form.id = "sign-form";
  submit.setAttribute("form", form.id);
  dialog.append(h("div", { class: "dialog-actions" }, cancel, submit));

  const show = () => {
    manifestPlace.replaceChildren(...manifestInWords(shown));
    meaning.replaceChildren(...shown.meanings.map((one) => h("option", { value: one.value }, one.label)));
  };
  show();
  password.focus();

  let signed: Signed | null = null;
  let key = crypto.randomUUID();
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    void send();
  });
  const send = async () => {
    submit.disabled = true;
    problem.hidden = true;
    try {
      signed = await postJson<Signed>(
        `${url}sign/`,
        { meaning: meaning.value, password: password.value, manifest_sha256: shown.manifest_sha256, utc_offset_minutes: -new Date().getTimezoneOffset() },
        key,
      );
      dialog.close("signed");
    } catch (error) {
      await refused(error);
    } finally {
      submit.disabled = false;
      password.value = "";
    }
  };
  const refused = async (error: unknown) => {
    const differences = error instanceof ApiError ? (error.body["differences"] as Difference[] | undefined) : undefined;
    problem.textContent = inWords(error);
    problem.hidden = false;
    if (!differences) return password.focus();
    key = crypto.randomUUID(); // another text, another request
    try {
      shown = await getJson<Shown>(`${url}manifest/`);
      show();
    } catch (again) {
      problem.textContent = inWords(again);
    }
    changes.replaceChildren(h("div", { class: "notice warn" }, h("p", {}, "Changed since it was shown to you. Nothing was signed; this is the record as it is now."), h("ul", {}, ...differences.slice(0, 12).map(differenceInWords))));
    dialog.scrollTo(0, 0);
  };
  await closed;
  return signed;
}

function differenceInWords(difference: Difference): HTMLElement {
  const words = (value: unknown) => (value === null || value === undefined ? "nothing" : typeof value === "object" ? JSON.stringify(value) : String(value));
  return h("li", {}, `${difference.where.replaceAll(".", ", ").replaceAll("_", " ")}: ${words(difference.before)} \u2192 ${words(difference.now)}`);
}

function manifestInWords({ manifest, manifest_sha256 }: Shown): HTMLElement[] {
  const table = manifest.node_table;
  return [
    h("p", {}, `Case ${manifest.case.accession}, by ${manifest.signer.printed_name}. Software metadet ${manifest.software_version}. For research use only.`),
    h(
      "div",
      { class: "table-scroll", tabindex: 0, role: "region", "aria-label": "Slides" },
      h(
        "table",
        { class: "table compact" },
        h("thead", {}, h("tr", {}, ...["Slide", "Unaided call", "Final call", "AI", "Decisions", "Own lesions"].map((words) => h("th", { scope: "col" }, words)))),
        h("tbody", {}, ...manifest.slides.map(slideRow)),
      ),
    ),
    h("h3", {}, `Lymph nodes: ${table.examined} examined, ${table.positive} positive`),
    h(
      "ul",
      {},
      ...table.rows.map((row) => h("li", {}, `${row.node || "No node named"}: ${row.result ?? "no result"}${row.largest_mm === null ? "" : `, largest ${millimetres(row.largest_mm)}`}${row.note ? ` (${row.note})` : ""}`)),
    ),
    h("p", { class: "soft" }, table.rule),
    h("p", { class: "hash" }, `SHA-256 of the text signed: ${manifest_sha256}`),
  ];
}

function slideRow(slide: Manifest["slides"][number]): HTMLElement {
  const { read } = slide;
  if (!read) return h("tr", {}, h("th", { scope: "row" }, slide.name), h("td", { colspan: 5 }, `not read (${slide.state})`));
  const newest = new Map(read.decisions.map((decision) => [decision.lesion, decision.verdict]));
  const count = (verdict: string) => [...newest.values()].filter((one) => one === verdict).length;
  const ai = read.ai ? signedAiWords(read.ai) : "not shown";
  const own = read.marks.filter((mark) => mark.removed_at === null).length;
  return h(
    "tr",
    {},
    h("th", { scope: "row" }, slide.name),
    h("td", {}, lastCall(read.calls, "unaided")),
    h("td", {}, h("strong", {}, lastCall(read.calls, "final"))),
    h("td", {}, ai),
    h("td", {}, `${count("accepted")} accepted, ${count("rejected")} rejected`),
    h("td", {}, String(own)),
  );
}

function lastCall(calls: ManifestCall[], stage: string): string {
  const call = calls.filter((one) => one.stage === stage).at(-1);
  if (!call) return "none";
  const words = CALLS.find((one) => one.value === call.value)?.words ?? call.value;
  return call.reason ? `${words} (${call.reason})` : words;
}
