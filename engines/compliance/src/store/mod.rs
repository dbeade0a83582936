//! The only SQL of the engine, a room per group of tables.

pub mod alerts;
pub mod allowances;
pub mod cases;
pub mod holds;
pub mod lists;
pub mod monitor;
pub mod rules;

pub use alerts::raise_alert;
pub use allowances::{
    allowances_in_force, end_allowance, find_allowance, insert_allowance, list_allowances, lock_allow_list,
};
pub use cases::{
    CaseFilter, append_steps, find_case, find_open_case, insert_cases, list_cases, list_steps, lock_case, open_or_join,
    save_case, step_of_command,
};
pub use holds::{
    NewHold, find_hold, find_hold_with_basis, holds_under_way, list_holds, lock_hold, place_holds, save_basis,
    save_hold,
};
pub use lists::{
    ListHead, Load, Loaded, list_files, list_heads, list_loads, lock_any_list, lock_list_head, revisions, use_list,
};
pub use monitor::{applied_rules, begin_batch, drop_others, read_threads, write_taken};
pub use rules::{
    AlertFilter, ListedRule, count_rules, find_rule, insert_alerts, insert_rule, latest_alerts, list_alerts,
    list_rules, lock_rules, rule_of_command,
};
