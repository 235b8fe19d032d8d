import { type Mesh, openMesh } from './mesh.ts';

/** Meshes that the tests of a file share, opened when first asked for. */
export interface MeshPool {
  of(devices: number): Promise<Mesh>;
  close(): Promise<void>;
}

export function meshPool(): MeshPool {
  const meshes = new Map<number, Promise<Mesh>>();
  return {
    of: (devices) => {
      const mesh = meshes.get(devices) ?? openMesh({ devices });
      meshes.set(devices, mesh);
      return mesh;
    },
    close: async () => {
      for (const mesh of meshes.values()) await (await mesh).close();
    },
  };
}
