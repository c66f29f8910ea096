/** JSON over the session: CSRF header, errors as the words the server gave, what to do on each kind of failure. */

export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly body: Record<string, unknown>,
  ) {
    super(message);
  }
}

/** The request never got an answer: no network, server down. Trying again later is right. */
export class Unreachable extends Error {}

/** The session ended; the person has to log in again before anything else can be sent. */
export class LoggedOut extends Error {}

/** What went wrong, for people. */
export const inWords = (error: unknown): string => (error instanceof Error ? error.message : String(error));

let csrf = "";

export function setCsrf(token: string): void {
  csrf = token;
}

/** The token of the page as the server would write it now; needed after a log-in in another tab changed it. */
export async function renewCsrf(): Promise<boolean> {
  const response = await fetch(location.href, { credentials: "same-origin" });
  if (!response.ok || response.redirected) return false;
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const token = tokenOf(page);
  if (token) csrf = token;
  return Boolean(token);
}

function tokenOf(page: Document): string {
  const boot = page.getElementById("boot")?.textContent;
  if (boot) {
    const parsed = JSON.parse(boot) as { csrf?: string };
    if (parsed.csrf) return parsed.csrf;
  }
  return page.querySelector<HTMLInputElement>("input[name=csrfmiddlewaretoken]")?.value ?? "";
}

export interface Send {
  method?: "GET" | "POST" | "DELETE";
  json?: unknown;
  key?: string;
  signal?: AbortSignal;
  /** Let the request outlive the page. */
  keepalive?: boolean;
}

/** Sends and returns the response; anything but 2xx is thrown as ApiError, LoggedOut or Unreachable. */
export async function send(url: string, options: Send = {}): Promise<Response> {
  const method = options.method ?? (options.json === undefined ? "GET" : "POST");
  const headers: Record<string, string> = { Accept: "application/json" };
  if (method !== "GET") headers["X-CSRFToken"] = csrf || tokenOf(document);
  if (options.json !== undefined) headers["Content-Type"] = "application/json";
  if (options.key) headers["Idempotency-Key"] = options.key;
  const init: RequestInit = { method, headers, credentials: "same-origin" };
  if (options.json !== undefined) init.body = JSON.stringify(options.json);
  if (options.signal) init.signal = options.signal;
  if (options.keepalive) init.keepalive = true;
  let response: Response;
  try {
    response = await fetch(url, init);
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Unreachable("The server did not answer.");
  }
  if (response.ok && !(response.redirected && response.url.includes("/accounts/login/"))) return response;
  throw await refusal(response);
}

async function refusal(response: Response): Promise<Error> {
  if (response.redirected || response.status === 401) return new LoggedOut("Your session has ended.");
  const text = await response.text();
  let body: Record<string, unknown> = {};
  try {
    body = JSON.parse(text) as Record<string, unknown>;
  } catch {
    body = {}; // an HTML error page of a proxy; the status says enough
  }
  const code = String(body["error"] ?? body["code"] ?? "");
  if (response.status === 403 && (code === "not_authenticated" || /csrf/i.test(text))) {
    return new LoggedOut("Your session has ended.");
  }
  if ([429, 502, 503, 504].includes(response.status)) return new Unreachable("The server is busy or restarting.");
  const words = String(body["message"] ?? body["detail"] ?? `The server answered with status ${response.status}.`);
  return new ApiError(response.status, code, words, body);
}

export async function getJson<T>(url: string, signal?: AbortSignal): Promise<T> {
  const response = await send(url, signal ? { signal } : {});
  return (await response.json()) as T;
}

export async function postJson<T>(url: string, json: unknown, key?: string): Promise<T | null> {
  const response = await send(url, key ? { json, key } : { json });
  return response.status === 204 ? null : ((await response.json()) as T);
}
