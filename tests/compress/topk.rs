//! Selection equals a full sort, on any thread count.

use crate::support::{KINDS, Kind, sorted_top_k, vector};
use scadles::compress::{BLOCK_LEN, CompressError, Plan, top_k};
use scadles::train::config::TopKScope;
use std::ops::Range;

const DENSITIES: [f64; 7] = [1e-9, 0.001, 0.01, 0.1, 0.25, 0.9, 1.0];

fn check(x: &[f32], layers: &[Range<usize>], scope: TopKScope, density: f64, what: &str) {
    let plan = Plan::new(x.len(), layers, scope).unwrap();
    let (selection, norms) = top_k(x, &plan, density).unwrap();
    let whole = [0..x.len()];
    let groups = if scope == TopKScope::Layer { layers } else { &whole[..] };
    let expected = sorted_top_k(x, groups, density);
    assert!(selection.indices(&plan, x) == expected, "{what}, density {density}: another set than a sort's");
    assert_eq!((selection.num_kept(), norms.num_kept), (expected.len(), expected.len()));

    let squares =
        |indices: &mut dyn Iterator<Item = usize>| indices.map(|i| f64::from(x[i]).powi(2)).sum::<f64>();
    let close = |found: f64, wanted: f64| (found - wanted).abs() <= 1e-12 * wanted;
    assert!(close(norms.squared, squares(&mut (0..x.len()))), "{what}: {norms:?}");
    assert!(close(norms.topk_squared, squares(&mut expected.iter().copied())), "{what}: {norms:?}");
    let of_layers = if layers.is_empty() { &whole[..] } else { layers };
    let kept_in =
        |layer: &Range<usize>| expected.iter().copied().filter(|i| layer.contains(i)).collect::<Vec<_>>();
    let sum: f64 = of_layers.iter().map(|layer| squares(&mut layer.clone()).sqrt()).sum();
    let topk: f64 = of_layers.iter().map(|layer| squares(&mut kept_in(layer).into_iter()).sqrt()).sum();
    assert!(
        close(norms.layer_sum, sum) && close(norms.layer_topk_sum, topk),
        "{what}: {norms:?}, {sum}, {topk}"
    );
}

#[test]
fn vector_scope_equals_a_sort() {
    for kind in KINDS {
        for numel in [1, 2, 17, 1000, BLOCK_LEN, BLOCK_LEN + 1, 150_001] {
            let x = vector(kind, numel, 3);
            let densities = if numel > 1000 { &[0.001, 0.1, 1.0][..] } else { &DENSITIES };
            for &density in densities {
                check(&x, &[], TopKScope::Vector, density, &format!("{kind:?} of {numel}"));
            }
        }
    }
}

#[test]
fn layers_are_selected_apart_or_only_summed_apart() {
    let layers = [0..1, 1..65, 65..40_065, 40_065..40_075, 40_075..170_000];
    for kind in KINDS {
        let x = vector(kind, 170_000, 4);
        for scope in [TopKScope::Vector, TopKScope::Layer] {
            for density in [0.001, 0.1] {
                check(&x, &layers, scope, density, &format!("{kind:?}, {scope:?}"));
            }
        }
    }
}

#[test]
fn many_tiny_layers_do_not_defeat_the_guess() {
    let layers: Vec<Range<usize>> = (0..2_000).map(|i| 100 * i..100 * (i + 1)).collect();
    let x = vector(Kind::Normal, 200_000, 5);
    check(&x, &layers, TopKScope::Vector, 0.01, "vector");
    check(&x, &layers, TopKScope::Layer, 0.01, "layer");
}

#[test]
fn neither_set_nor_norms_depend_on_threads() {
    let x = vector(Kind::Normal, 1_000_000, 6);
    let plan = Plan::new(x.len(), &[], TopKScope::Vector).unwrap();
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let (selection, norms) = pool.install(|| top_k(&x, &plan, 0.01)).unwrap();
        (selection.indices(&plan, &x), norms)
    };
    let one = run(1);
    assert_eq!(run(2), one);
    assert_eq!(run(5), one);
}

#[test]
fn bad_input_is_refused_by_name() {
    let plan = Plan::new(70_000, &[], TopKScope::Vector).unwrap();
    let mut x = vector(Kind::Normal, 70_000, 7);
    assert!(matches!(top_k(&x[1..], &plan, 0.1), Err(CompressError::Length { found: 69_999, .. })));
    for density in [0.0, -0.1, 1.1, f64::NAN] {
        assert!(matches!(top_k(&x, &plan, density), Err(CompressError::OutOfRange { what: "density", .. })));
    }
    (x[66_000], x[69_000]) = (f32::NEG_INFINITY, f32::NAN);
    let expected = CompressError::NotFinite { what: "x", index: 66_000, value: f32::NEG_INFINITY };
    assert_eq!(top_k(&x, &plan, 0.1).unwrap_err(), expected);
}
