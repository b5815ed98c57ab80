//! Where problems are said to be, held against the text they are said of. A fuzz target asks the same.

/// A place `line:column` within a text, or right behind it.
fn is_in(text: &[u8], line: usize, column: usize) -> bool {
    // The line breaks of YAML 1.2, section 5.4.
    let text = String::from_utf8_lossy(text).replace("\r\n", "\n");
    let lines: Vec<&str> = text.split(['\n', '\r']).collect();
    let long_enough = |line: &str| column <= line.chars().count() + 1;
    (1..=lines.len() + 1).contains(&line) && column >= 1 && lines.get(line - 1).is_none_or(|line| long_enough(line))
}

/// Every line of `answer` is a problem with a place in the text; one of them at least.
pub(crate) fn misplaced(answer: &str, text: &[u8]) -> Option<String> {
    let place = |line: &str| {
        let mut parts = line.strip_prefix("hookwarden.yaml:")?.splitn(3, ':');
        let (line, column, what) = (parts.next()?, parts.next()?, parts.next()?);
        (!what.trim().is_empty() && is_in(text, line.parse().ok()?, column.parse().ok()?)).then_some(())
    };
    if answer.is_empty() {
        return Some("no problem is told".to_owned());
    }
    answer.split_terminator('\n').find(|line| place(line).is_none()).map(str::to_owned)
}
