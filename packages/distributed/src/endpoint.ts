import type { MessagePort, TransferListItem, Worker } from 'node:worker_threads';
import type { Endpoint } from 'comlink';

type Listener = (event: { data: unknown }) => void;

/**
 * A worker_threads port as the event target comlink expects.
 * (comlink ships one, but without the type declarations that NodeNext resolution asks for.)
 */
export function threadEndpoint(port: Worker | MessagePort): Endpoint {
  const wrapped = new Map<unknown, (data: unknown) => void>();
  return {
    postMessage: (message: unknown, transfer?: unknown[]) =>
      port.postMessage(message, transfer as TransferListItem[] | undefined),
    addEventListener: (_type: string, listener: unknown) => {
      const onMessage = (data: unknown): void =>
        typeof listener === 'function'
          ? (listener as Listener)({ data })
          : (listener as { handleEvent: Listener }).handleEvent({ data });
      wrapped.set(listener, onMessage);
      port.on('message', onMessage);
    },
    removeEventListener: (_type: string, listener: unknown) => {
      const onMessage = wrapped.get(listener);
      if (onMessage !== undefined) port.off('message', onMessage);
      wrapped.delete(listener);
    },
  };
}
