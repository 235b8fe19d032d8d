/** ChromBPNet (Pampari et al. 2024, "ChromBPNet: bias factorized, base-resolution deep learning models of chromatin accessibility"). */
import { add, logAddExp, nn, type Tensor } from '@cohesin/core';
import { type Bpnet, type BpnetOutputs, bpnet, unpaddedTrimming } from '../bpnet/model.ts';

interface Size {
  readonly filters: number;
  readonly dilatedLayers: number;
}

export interface ChrombpnetOptions {
  /** The package's own models (`chrombpnet`) or those of bpnet-lite: they count reads over other positions. */
  readonly form?: 'chrombpnet' | 'lite';
  readonly accessibility?: Size;
  readonly bias?: Size;
  /** Positions of x at each end that the profile leaves out. */
  readonly trimming?: number;
}

export interface Chrombpnet extends nn.Layer<Tensor, BpnetOutputs> {
  /**
   * The prediction without the enzyme's bias. To compile it alone:
   * `predictStep({ model: (x: Tensor) => model.accessibility({ x }), trained: model })`.
   */
  readonly accessibility: Bpnet;
  readonly bias: Bpnet;
  /** For `trainStep`: the bias model keeps the values it was trained to before. */
  readonly frozen: readonly string[];
}

/**
 * ChromBPNet: accessibility as the product of what the sequence opens and where the enzyme (Tn5, DNase I) prefers to cut:
 * x one-hot [batch, length, 4] → logits [batch, length − 2 · trimming, 1], the sum of both models', and log counts
 * [batch, 1], the log of their summed counts. By default 2,114 bp → 1,000 bp, 6,377,986 + 217,730 parameters.
 *
 * Published variants, and which this is:
 * - The bias model is trained first, on reads outside of peaks, and then frozen: pass `frozen` to `trainStep`.
 * - The two sources average counts over other positions: the package (`chrombpnet`) over all that no padding reaches, 1,074
 *   of the accessibility model and 2,034 of the bias model; bpnet-lite (`lite`) over the 1,074 that the profile sees. A
 *   bias model trained with one counts otherwise in the other.
 * - Newer versions of bpnet-lite cut x for the bias model instead of trimming its output more, which is the same.
 * - There are no control tracks, and one unstranded profile.
 *
 * @throws when the trimming is smaller than either model needs.
 */
export function chrombpnet(options: ChrombpnetOptions = {}): Chrombpnet {
  const { form = 'chrombpnet' } = options;
  const { accessibility = { filters: 512, dilatedLayers: 8 }, bias = { filters: 128, dilatedLayers: 4 } } =
    options;
  const { trimming = unpaddedTrimming(accessibility.dilatedLayers) } = options;
  const shared = { form, trimming, strands: 1, controlTracks: 0 };
  const parts = {
    accessibility: bpnet({ ...shared, ...accessibility }),
    bias: bpnet({ ...shared, ...bias }),
  };
  const model = nn.layer(parts, (x: Tensor): BpnetOutputs => {
    const [open, cut] = [parts.accessibility({ x }), parts.bias({ x })];
    return {
      logits: add(open.logits, cut.logits),
      logCounts: logAddExp(open.logCounts, cut.logCounts),
    };
  });
  return Object.assign(model, { ...parts, frozen: ['bias.*'] });
}
