/** Whether WebGL runs on the processor. OpenSeadragon's own check says yes to it, and then draws two frames a second. */

const SOFTWARE = /swiftshader|llvmpipe|softpipe|basic render|software/i;

export function isSoftwareRenderer(renderer: string): boolean {
  return SOFTWARE.test(renderer);
}

/** Name of the renderer, or null where there is no WebGL at all. */
export function webglRenderer(): string | null {
  const canvas = document.createElement("canvas");
  const gl = canvas.getContext("webgl2") ?? canvas.getContext("webgl");
  if (!gl) return null;
  const names = gl.getExtension("WEBGL_debug_renderer_info");
  const renderer = String(gl.getParameter(names ? names.UNMASKED_RENDERER_WEBGL : gl.RENDERER));
  gl.getExtension("WEBGL_lose_context")?.loseContext();
  return renderer;
}

export type DrawerKind = "webgl" | "canvas";

export function chooseDrawer(renderer: string | null, wanted: string | null): DrawerKind {
  if (wanted === "webgl" || wanted === "canvas") return wanted; // ?drawer= of the self-test
  return renderer === null || isSoftwareRenderer(renderer) ? "canvas" : "webgl";
}
