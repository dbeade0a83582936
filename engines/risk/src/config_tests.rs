//! Keys, ranges and what they become.

use super::*;

#[test]
fn keys_and_ranges_are_checked() {
    assert_eq!(toml::from_str::<Settings>("").unwrap(), Settings::default());
    assert!(toml::from_str::<Settings>("maximum = 1").unwrap_err().to_string().contains("maximum"));
    assert!(Settings::default().checked().is_ok());
    for bad in [
        "stale_after_seconds = 1",
        "approve_wait_ms = 60001",
        "time_zone = \"Mars/Olympus\"",
        "alarms.thresholds = [0]",
        "alarms.thresholds = [10001]",
        "alarms.thresholds = [1, 2, 3, 4, 5, 6, 7, 8, 9]",
        "alarms.hysteresis = 5001",
        "breakers.cool_down_seconds = 9",
        "breakers.probes = 0",
        "breakers.reject_rate.window_seconds = 7",
        "breakers.reject_rate.share = 10000",
        "breakers.volume_spike.factor = 10000",
        "breakers.volume_spike = { interval_seconds = 600, intervals = 12 }",
        "breakers.stale_data.after_seconds = 4",
    ] {
        let settings: Settings = toml::from_str(bad).unwrap();
        assert!(settings.check().unwrap_err().contains("risk."), "{bad}");
    }
    assert!(toml::from_str::<Settings>("breakers.reject_rate.scopes = [\"bank\"]").is_err());
}

#[test]
fn maxima_are_exact_amounts() {
    let read = |text: &str| {
        let settings: Settings = toml::from_str(text).map_err(|e| e.to_string())?;
        settings.check().and_then(|()| settings.maxima())
    };
    let maxima = read("[single_transaction_maximum]\nUSD = \"10000000.00\"\nJPY = \"1000\"").unwrap();
    assert_eq!(maxima.values().map(Money::to_string).collect::<Vec<_>>(), ["1000 JPY", "10000000.00 USD"]);
    for bad in ["USD = \"1\"", "USD = \"0.00\"", "USD = \"-1.00\"", "XXX = \"1.00\"", "USD = 1"] {
        assert!(read(&format!("[single_transaction_maximum]\n{bad}")).is_err(), "{bad}");
    }
}

#[test]
fn a_business_day_begins_at_midnight_in_its_time_zone() {
    let settings: Settings = toml::from_str("time_zone = \"Asia/Dubai\"").unwrap();
    let settings = settings.checked().unwrap();
    for (at, day) in [("2026-11-20T19:59:59Z", "2026-11-20"), ("2026-11-20T20:00:00Z", "2026-11-21")] {
        assert_eq!(settings.day_of(at.parse().unwrap()), day);
    }
}

#[test]
fn triggers_watch_the_scopes_that_are_named() {
    let text = "breakers.reject_rate = { enabled = true, scopes = [\"corridor\"] }";
    let settings = toml::from_str::<Settings>(text).unwrap().checked().unwrap();
    assert!(settings.thresholds("corridor:AE-IN".parse().unwrap()).reject_rate.is_some());
    assert_eq!(settings.thresholds("global".parse().unwrap()), Thresholds::default());
}
