//! What is wrong with a configuration: where, what, and what to write instead.
//!
//! A problem's text never holds a value that may be a secret; it names kinds and places.

use super::yaml::Positions;
use std::{
    collections::{BTreeSet, HashSet},
    fmt, iter,
    path::PathBuf,
    sync::Arc,
};

/// One thing wrong, or one remark.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Problem {
    /// Line and column, counted from 1, once known.
    pub position: Option<(usize, usize)>,
    /// Where in the document, as `endpoints.github.secrets[0].file`; empty for the whole.
    pub path: Path,
    /// What is wrong, and what to write instead.
    pub text: String,
}

/// A place in a document. One costs its last step alone: it shares the others with the place around it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Path(Option<Arc<(Path, Step)>>);

/// One step of a [`Path`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// A key of a mapping.
    Key(String),
    /// An index of a sequence.
    Index(usize),
}

impl Path {
    /// This place's member `key`.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        self.then(Step::Key(key.to_owned()))
    }

    /// This place's item `index`.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.then(Step::Index(index))
    }

    /// This place and one step further.
    #[must_use]
    pub fn then(&self, step: Step) -> Self {
        Self(Some(Arc::new((self.clone(), step))))
    }

    /// The steps.
    #[must_use]
    pub fn steps(&self) -> Vec<&Step> {
        let mut steps: Vec<&Step> =
            iter::successors(self.0.as_deref(), |(around, _)| around.0.as_deref()).map(|(_, step)| step).collect();
        steps.reverse();
        steps
    }

    /// The last step; none for the whole.
    #[must_use]
    pub fn last(&self) -> Option<&Step> {
        self.0.as_deref().map(|(_, step)| step)
    }

    /// The place that the first `steps` steps lead to, if there are that many.
    #[must_use]
    pub fn first(&self, steps: usize) -> Option<Self> {
        let beyond = self.steps().len().checked_sub(steps)?;
        iter::successors(Some(self.clone()), Self::parent).nth(beyond)
    }

    /// The place around this one.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        self.0.as_deref().map(|(around, _)| around.clone())
    }
}

impl FromIterator<Step> for Path {
    fn from_iter<I: IntoIterator<Item = Step>>(steps: I) -> Self {
        steps.into_iter().fold(Self::default(), |path, step| path.then(step))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.steps().into_iter().enumerate() {
            match step {
                Step::Key(key) if at == 0 => write!(f, "{key}")?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// Problems and remarks while they are collected.
#[derive(Debug, Default)]
pub struct Findings {
    /// What makes the configuration unusable.
    pub problems: Vec<Problem>,
    /// What should be looked at.
    pub warnings: Vec<Problem>,
    /// The files that were read, or should have been.
    pub files: BTreeSet<PathBuf>,
}

impl Findings {
    /// Records a problem; returns nothing, so that `findings.problem(…)` can stand for an absent value.
    pub fn problem<T>(&mut self, path: &Path, text: impl Into<String>) -> Option<T> {
        self.problems.push(Problem { position: None, path: path.clone(), text: text.into() });
        None
    }

    /// Records a remark.
    pub fn warn(&mut self, path: &Path, text: impl Into<String>) {
        self.warnings.push(Problem { position: None, path: path.clone(), text: text.into() });
    }

    /// Finds every path in the text, and puts problems in the text's order, each of them once.
    pub fn locate(&mut self, positions: &Positions) {
        for problem in self.problems.iter_mut().chain(&mut self.warnings) {
            if problem.position.is_none() {
                problem.path = positions.in_text(&problem.path);
                // What is wrong with the whole is wrong from the start.
                problem.position = positions.find(&problem.path).or(Some((1, 1)));
            }
        }
        for found in [&mut self.problems, &mut self.warnings] {
            // Two schemes may trip over the same thing.
            let mut told = HashSet::new();
            found.retain(|problem| told.insert(problem.clone()));
            found.sort_by_key(|problem| problem.position);
        }
    }
}

/// Everything wrong with a file. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    /// The file's name.
    pub file: String,
    /// In the text's order.
    pub problems: Vec<Problem>,
    /// The files that it names, as far as it could be read.
    pub files: BTreeSet<PathBuf>,
}

impl Problems {
    pub(super) fn new(file: &str, problems: Vec<Problem>) -> Self {
        Self { file: file.to_owned(), problems, files: BTreeSet::new() }
    }

    pub(super) fn of_file(file: &str, text: String) -> Self {
        Self::new(file, vec![Problem { position: None, path: Path::default(), text }])
    }
}

impl Problem {
    /// The problem as a line, `file:line:column: path: text`.
    #[must_use]
    pub fn line(&self, file: &str) -> String {
        let position = self.position.map(|(line, column)| format!(":{line}:{column}")).unwrap_or_default();
        let path = if self.path == Path::default() { String::new() } else { format!(" {}:", self.path) };
        format!("{file}{position}:{path} {}", self.text)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.problems.iter().map(|problem| problem.line(&self.file)).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Problems {}
