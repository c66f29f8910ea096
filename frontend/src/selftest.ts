export async function runSelfTest(_place: HTMLElement): Promise<void> {}
