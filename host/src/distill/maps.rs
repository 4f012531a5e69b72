//! Generated maps: which of a method's maps takes the place of which input of the student's head.

use crate::plugin::{Plan, TapBinding};

/// For each tap that the head reads, the slot of the map in its place; empty if the plan has no maps.
///
/// The head is run on maps alone: with some levels generated and others the student's own, neither
/// the loss nor its gradient would say what the method's maps are worth.
///
/// # Errors
/// A sentence that names the map or the tap: a map in place of what the head does not read or the
/// method does not use, two maps for one tap, or a tap of the head without a map.
pub fn in_head_order(
    plan: &Plan,
    bindings: &[TapBinding],
    head_taps: &[String],
) -> Result<Vec<usize>, String> {
    if plan.maps.is_empty() {
        return Ok(Vec::new());
    }
    let mut slots = vec![None; head_taps.len()];
    for (slot, map) in plan.maps.iter().enumerate() {
        let tap = &bindings[map.replaces_tap].name;
        let Some(position) = head_taps.iter().position(|name| name == tap) else {
            return Err(format!(
                "map `{}` takes the place of `{tap}`, which the head does not read; it reads: {}",
                map.name,
                head_taps.join(", ")
            ));
        };
        if plan.tap_use[map.replaces_tap] == 0 {
            return Err(format!(
                "map `{}` takes the place of `{tap}`, which the plan marks as unused; its extents are \
                 known only where the tap is read",
                map.name
            ));
        }
        if let Some(other) = slots[position].replace(slot) {
            let other = &plan.maps[other].name;
            return Err(format!(
                "maps `{other}` and `{}` both take the place of `{tap}`",
                map.name
            ));
        }
    }
    let missing: Vec<&str> = head_taps
        .iter()
        .zip(&slots)
        .filter(|(_, slot)| slot.is_none())
        .map(|(name, _)| name.as_str())
        .collect();
    if missing.is_empty() {
        return Ok(slots.into_iter().flatten().collect());
    }
    Err(format!(
        "the head needs a map for each of its inputs; none takes the place of {} (a restriction of \
         `distill.taps` leaves levels out)",
        missing.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::MapSpec;

    fn case(maps: &[(&str, usize)]) -> Result<Vec<usize>, String> {
        case_using(maps, [1; 3])
    }

    fn case_using(maps: &[(&str, usize)], tap_use: [u32; 3]) -> Result<Vec<usize>, String> {
        let names = ["neck.p3", "neck.p4", "backbone.c5"];
        let binding = |name: &&str| TapBinding {
            name: (*name).into(),
            role: "student".into(),
            channels: 4,
            stride: 8,
            size: None,
            grad: true,
        };
        let plan = Plan {
            maps: maps
                .iter()
                .map(|&(name, replaces_tap)| MapSpec {
                    name: name.into(),
                    shape: vec![-1, 4, -2, -3],
                    replaces_tap,
                })
                .collect(),
            tap_use: tap_use.to_vec(),
            ..Plan::default()
        };
        let bindings: Vec<TapBinding> = names.iter().map(binding).collect();
        in_head_order(&plan, &bindings, &["neck.p3".into(), "neck.p4".into()])
    }

    #[test]
    fn maps_are_found_by_the_tap_they_replace() {
        assert_eq!(case(&[]), Ok(vec![]));
        assert_eq!(case(&[("b", 1), ("a", 0)]), Ok(vec![1, 0]));
    }

    #[test]
    fn what_does_not_fit_the_head_is_named() {
        for (maps, needles) in [
            (&[("a", 0)][..], ["neck.p4", "distill.taps"]),
            (&[("a", 0), ("b", 1), ("c", 2)], ["`c`", "backbone.c5"]),
            (&[("a", 0), ("b", 0)], ["`a` and `b`", "neck.p3"]),
        ] {
            let message = case(maps).unwrap_err();
            assert!(needles.iter().all(|n| message.contains(n)), "{message}");
        }
        let message = case_using(&[("a", 0), ("b", 1)], [0, 1, 1]).unwrap_err();
        assert!(message.contains("marks as unused"), "{message}");
    }
}
