//! Products against Candle's own reading of the blocks.

use candle_core::Device;
use candle_core::quantized::{GgmlDType, QStorage, QTensor};

use super::*;

/// What the activations are after quantisation, in f64.
fn quantised(family: Family, values: &[f32]) -> Vec<f64> {
    let block = match family {
        Family::Super => 256,
        Family::Block => 32,
        Family::Float => return values.iter().map(|&x| f64::from(x)).collect(),
    };
    let mut out = Vec::new();
    for values in values.chunks(block) {
        let greatest = values.iter().fold(0f32, |most, x| most.max(x.abs()));
        let (d, inverse) = (greatest / 127.0, 127.0 / greatest);
        out.extend(values.iter().map(|x| f64::from(d) * f64::from((x * inverse).round_ties_even())));
    }
    out
}

fn candle(kind: GgmlType) -> Option<GgmlDType> {
    Some(match kind {
        GgmlType::Q4_0 => GgmlDType::Q4_0,
        GgmlType::Q4_1 => GgmlDType::Q4_1,
        GgmlType::Q5_0 => GgmlDType::Q5_0,
        GgmlType::Q5_1 => GgmlDType::Q5_1,
        GgmlType::Q8_0 => GgmlDType::Q8_0,
        GgmlType::Q2_K => GgmlDType::Q2K,
        GgmlType::Q3_K => GgmlDType::Q3K,
        GgmlType::Q4_K => GgmlDType::Q4K,
        GgmlType::Q5_K => GgmlDType::Q5K,
        GgmlType::Q6_K => GgmlDType::Q6K,
        GgmlType::F16 => GgmlDType::F16,
        GgmlType::BF16 => GgmlDType::BF16,
        GgmlType::F32 => GgmlDType::F32,
        _ => return None,
    })
}

/// The weights as Candle reads them.
fn dequantised(kind: GgmlType, rows: usize, k: usize, bytes: &[u8]) -> Option<Vec<f32>> {
    let storage = QStorage::from_data(bytes.into(), &Device::Cpu, candle(kind)?).unwrap();
    let tensor = QTensor::new(storage, (rows, k)).unwrap();
    Some(tensor.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap())
}

#[test]
fn products_equal_candles_weights_times_the_quantised_activations() {
    let mut random = StdRng::seed_from_u64(2);
    let compute = Compute::new(1, *Isa::ALL.iter().rfind(|isa| isa.check().is_ok()).unwrap()).unwrap();
    let mut checked = 0;
    for kind in KINDS {
        for (rows, blocks, tokens) in [(1, 1, 1), (33, 2, 3), (40, 5, 9), (64, 3, 20)] {
            let k = blocks * kind.block_size().max(32);
            let bytes = random_rows(&mut random, kind, rows, k);
            let Some(weights) = dequantised(kind, rows, k, &bytes) else { continue };
            let values = random_values(&mut random, tokens * k);
            let [tiles, _] = matrices(&compute, kind, rows, k, &bytes);
            let out = multiply(&compute, &tiles, &values, tokens);
            let acts: Vec<f64> = values.chunks(k).flat_map(|row| quantised(tiles.family(), row)).collect();
            for token in 0..tokens {
                for row in 0..rows {
                    let (w, a) = (&weights[row * k..][..k], &acts[token * k..][..k]);
                    let wanted: f64 = w.iter().zip(a).map(|(&w, a)| f64::from(w) * a).sum();
                    let size: f64 = w.iter().zip(a).map(|(&w, a)| (f64::from(w) * a).abs()).sum();
                    let found = f64::from(out[token * rows + row]);
                    assert!(
                        (found - wanted).abs() <= 1e-6 * size + 1e-12,
                        "{kind} {rows}x{k}, token {token}, row {row}: {found}, not {wanted}"
                    );
                    checked += 1;
                }
            }
        }
    }
    assert!(checked > 10_000);
}
