#[derive(Clone, Debug)]
pub struct Source;
pub struct Loaded { pub config: crate::config::Config, pub warnings: Vec<String> }
pub type Problem = String;
impl Source { pub fn load(&self) -> Result<Loaded, Vec<Problem>> { Err(vec![]) } }
