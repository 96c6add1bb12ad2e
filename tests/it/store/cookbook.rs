//! Every query of the README works, on the small site that its answers are from.

use super::*;
use crate::readme::blocks::blocks;

/// Statements without their comments.
fn statements(sql: &str) -> Vec<String> {
    let lines: Vec<&str> = sql
        .lines()
        .map(|line| line.split_once("--").map_or(line, |(code, _)| code))
        .collect();
    lines
        .join("\n")
        .split(';')
        .map(|statement| statement.trim().to_owned())
        .filter(|statement| !statement.is_empty())
        .collect()
}

#[tokio::test]
async fn every_query_of_the_readme_is_answered_and_those_of_the_cookbook_have_the_columns_that_it_prints() {
    let fixture = Fixture::site().await;
    let reader = fixture.database.connect(Role::Reader).await.unwrap();
    let blocks = blocks();
    let (mut n_queries, mut n_answers) = (0, 0);
    for (index, block) in blocks.iter().enumerate() {
        if block.language != "sql" {
            continue;
        }
        let is_cookbook = block.section == "SQL cookbook";
        let mut last = Vec::new();
        for statement in statements(&block.text) {
            let verb = statement.split_whitespace().next().unwrap().to_uppercase();
            if !["SELECT", "WITH"].contains(&verb.as_str()) {
                // What an administrator does, and not here.
                let tried = format!("BEGIN; {statement}; ROLLBACK");
                fixture
                    .sql
                    .batch_execute(&tried)
                    .await
                    .unwrap_or_else(|error| panic!("{statement}\n{error:?}"));
                continue;
            }
            n_queries += 1;
            let prepared = reader
                .prepare(&statement)
                .await
                .unwrap_or_else(|error| panic!("{statement}\n{error:?}"));
            let rows = reader.query(&prepared, &[]).await.unwrap();
            assert!(!is_cookbook || !rows.is_empty(), "no rows: {statement}");
            last = prepared
                .columns()
                .iter()
                .map(|column| column.name().to_owned())
                .collect();
        }
        if let Some(answer) = blocks
            .get(index + 1)
            .filter(|next| is_cookbook && next.language == "text")
        {
            let header: Vec<&str> = answer
                .text
                .lines()
                .next()
                .unwrap()
                .split('|')
                .map(str::trim)
                .collect();
            assert_eq!(header, last, "{}", block.text);
            n_answers += 1;
        }
    }
    assert!(
        n_queries >= 15 && n_answers >= 10,
        "{n_queries} queries, {n_answers} answers"
    );
}
