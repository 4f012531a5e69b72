//! What `forward` returns.

use burn::tensor::Tensor;

use super::state::Layout;
use crate::MethodError;
use crate::raw::MapSpec;

/// Losses, maps, statistics and new buffer values of one forward.
#[derive(Debug, Default)]
pub struct Outputs {
    losses: Vec<(String, Tensor<1>)>,
    maps: Vec<(String, Tensor<4>)>,
    metrics: Vec<(String, Tensor<1>)>,
    buffers: Vec<(String, Vec<usize>, Tensor<1>)>,
}

impl Outputs {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Outputs::default()
    }

    /// A loss that the plan declared: shape `[1]`, before its weight.
    #[must_use]
    pub fn loss(mut self, name: &str, value: Tensor<1>) -> Self {
        self.losses.push((name.to_owned(), value));
        self
    }

    /// A map that the plan declared: the shape of the tap that it replaces.
    #[must_use]
    pub fn map(mut self, name: &str, value: Tensor<4>) -> Self {
        self.maps.push((name.to_owned(), value));
        self
    }

    /// A statistic from the method's `METRICS`: shape `[1]`, no gradient.
    #[must_use]
    pub fn metric(mut self, name: &str, value: Tensor<1>) -> Self {
        self.metrics.push((name.to_owned(), value));
        self
    }

    /// The new value of a buffer, by its path in the module. No gradient.
    #[must_use]
    pub fn buffer<const D: usize>(mut self, path: &str, value: Tensor<D>) -> Self {
        let shape = value.dims().to_vec();
        self.buffers
            .push((path.to_owned(), shape, value.flatten(0, D - 1)));
        self
    }

    /// Puts everything into slot order.
    ///
    /// `maps` has the shape each must have, which is that of the tap it replaces.
    ///
    /// # Errors
    /// If something planned is missing, or what is here was not planned or has another shape.
    pub(super) fn in_order(
        self,
        losses: &[(String, f64)],
        maps: &[(&MapSpec, Vec<usize>)],
        metrics: &[&str],
        layout: &Layout,
    ) -> Result<Ordered, MethodError> {
        let mut given = self.losses;
        let take_loss = |(name, _): &(String, f64)| {
            let loss = take(&mut given, name, "loss")?;
            one_number(loss, || format!("loss `{name}`"))
        };
        let losses = losses.iter().map(take_loss).collect::<Result<_, _>>()?;
        none_left(&given, "loss")?;

        let mut given = self.maps;
        let take_map = |(spec, shape): &(&MapSpec, Vec<usize>)| {
            let map = take(&mut given, &spec.name, "map")?;
            if map.dims() == shape[..] {
                return Ok(map);
            }
            Err(MethodError::shape(format!(
                "map `{}` has shape {:?}, the tap `{}` that it replaces {shape:?}",
                spec.name,
                map.dims(),
                spec.replaces,
            )))
        };
        let maps = maps.iter().map(take_map).collect::<Result<_, _>>()?;
        none_left(&given, "map")?;

        let declared = |(name, value): (String, Tensor<1>)| {
            if !metrics.contains(&name.as_str()) {
                return Err(MethodError::internal(format!("`{name}` is not in METRICS")));
            }
            let value = one_number(value, || format!("metric `{name}`"))?;
            Ok((name, value))
        };
        let slot =
            |(path, shape, value): (String, Vec<usize>, Tensor<1>)| -> Result<_, MethodError> {
                let known = |spec: &crate::raw::StateSpec| spec.name == path && spec.shape == shape;
                let slot = layout.buffers.iter().position(known).ok_or_else(|| {
                    MethodError::internal(format!(
                        "the module has no buffer `{path}` of shape {shape:?}"
                    ))
                })?;
                Ok((slot, value))
            };
        Ok(Ordered {
            losses,
            maps,
            metrics: self
                .metrics
                .into_iter()
                .map(declared)
                .collect::<Result<_, _>>()?,
            buffers: self
                .buffers
                .into_iter()
                .map(slot)
                .collect::<Result<_, _>>()?,
        })
    }
}

/// [`Outputs`] as the plan orders them.
pub(super) struct Ordered {
    pub(super) losses: Vec<Tensor<1>>,
    pub(super) maps: Vec<Tensor<4>>,
    pub(super) metrics: Vec<(String, Tensor<1>)>,
    /// Slot and new value, flat.
    pub(super) buffers: Vec<(usize, Tensor<1>)>,
}

fn one_number(value: Tensor<1>, what: impl Fn() -> String) -> Result<Tensor<1>, MethodError> {
    match value.dims() {
        [1] => Ok(value),
        [n] => Err(MethodError::internal(format!(
            "{} has {n} numbers, not one",
            what()
        ))),
    }
}

fn take<T>(given: &mut Vec<(String, T)>, name: &str, what: &str) -> Result<T, MethodError> {
    let at = given
        .iter()
        .position(|(known, _)| known == name)
        .ok_or_else(|| {
            MethodError::internal(format!("`forward` did not return the {what} `{name}`"))
        })?;
    Ok(given.swap_remove(at).1)
}

fn none_left<T>(given: &[(String, T)], what: &str) -> Result<(), MethodError> {
    match given.first() {
        None => Ok(()),
        Some((name, _)) => Err(MethodError::internal(format!(
            "`forward` returned the {what} `{name}`, which the plan does not declare"
        ))),
    }
}
