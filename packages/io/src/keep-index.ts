import { replacePath, writeSynced } from '@cohesin/core';

/** Saves a made index for next time; where the folder is read-only, the one in memory serves. */
export async function keepIndex(path: string, text: Uint8Array): Promise<void> {
  await replacePath(path, (aside) => writeSynced(aside, [text])).catch((error: unknown) => {
    const code = causeCode(error);
    if (code !== 'EACCES' && code !== 'EROFS' && code !== 'EPERM') throw error;
  });
}

function causeCode(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  return 'code' in error && typeof error.code === 'string' ? error.code : causeCode(error.cause);
}
