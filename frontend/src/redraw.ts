/** Drawing a part of the page anew without taking the focus away from whoever is in it. */

/** Elements keep the focus by their data-focus name. */
export function redraw(container: HTMLElement, ...children: (Node | string | null | false | undefined)[]): void {
  const focused = container.contains(document.activeElement) ? (document.activeElement as HTMLElement).dataset["focus"] : undefined;
  container.replaceChildren(...children.filter((child): child is Node | string => Boolean(child)));
  if (focused) container.querySelector<HTMLElement>(`[data-focus="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}
