//! One module a tap, named after it.

use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
};
use burn::tensor::Device;

use crate::MethodError;

/// A learned part for each of several taps. The tap's name is a segment of the parameters' path:
/// `connector.neck.p3.weight`.
#[derive(Clone, Debug)]
pub struct Levels<M>(Vec<(String, M)>);

impl<M: Module> Levels<M> {
    /// No level has a part.
    #[must_use]
    pub fn none() -> Self {
        Levels(Vec::new())
    }

    /// From names and parts, in this order.
    #[must_use]
    pub fn new(levels: Vec<(String, M)>) -> Self {
        Levels(levels)
    }

    /// The part of the tap `name`, if it has one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&M> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, part)| part)
    }

    /// The part of the tap `name`.
    ///
    /// # Errors
    /// If it has none.
    pub fn expect(&self, name: &str) -> Result<&M, MethodError> {
        self.get(name)
            .ok_or_else(|| MethodError::internal(format!("no learned part for tap `{name}`")))
    }

    fn each(self, mut f: impl FnMut(M) -> M) -> Self {
        Levels(
            self.0
                .into_iter()
                .map(|(name, part)| (name, f(part)))
                .collect(),
        )
    }
}

impl<M: Module> Module for Levels<M> {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.0
            .iter()
            .fold(devices, |devices, (_, part)| part.collect_devices(devices))
    }

    fn fork(self, device: &Device) -> Self {
        self.each(|part| part.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        self.each(|part| part.to_device(device))
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        for (name, part) in &self.0 {
            visitor.enter_module(name, "Levels");
            part.visit(visitor);
            visitor.exit_module(name, "Levels");
        }
    }

    fn map<T: ModuleMapper>(self, mapper: &mut T) -> Self {
        let mut levels = Vec::with_capacity(self.0.len());
        for (name, part) in self.0 {
            mapper.enter_module(&name, "Levels");
            let part = part.map(mapper);
            mapper.exit_module(&name, "Levels");
            levels.push((name, part));
        }
        Levels(levels)
    }

    fn valid(&self) -> Self {
        self.clone().each(|part| part.valid())
    }

    fn train(self) -> Self {
        self.each(Module::train)
    }

    fn materialize(self) -> Self {
        self.each(Module::materialize)
    }
}

impl<M: ModuleDisplay> ModuleDisplayDefault for Levels<M> {
    fn content(&self, content: Content) -> Option<Content> {
        self.0
            .iter()
            .fold(content, |content, (name, part)| content.add(name, part))
            .set_top_level_type("Levels")
            .optional()
    }
}

impl<M: ModuleDisplay> ModuleDisplay for Levels<M> {}
