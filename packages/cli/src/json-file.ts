/** What the text of a JSON file says. @throws with its path */
export function parseJson(text: string, path: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new Error(`${path}: no JSON: ${(cause as Error).message}`, { cause });
  }
}
