//! The manual pages of section 3 are what the headers say: one page for each group of functions, and no function without one.
//!
//! The pages in `docs/man` are made from the comments in `include/kvserver`, by the groups in the table below;
//! `KVBATCH_BLESS=1 cargo test --test man` rewrites them. kvbatch.1 and kvbatch.7 are written by hand. The version stands in
//! none of them: `make install` fills it in.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says what is wrong by panicking")]

#[path = "man/header.rs"]
mod header;
#[path = "man/roff.rs"]
mod roff;

use header::{Header, parse};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One page.
struct Group {
    page: &'static str,
    summary: &'static str,
    header: &'static str,
    functions: &'static [&'static str],
    /// Structs whose fields, and callback types whose rules, belong to these functions.
    types: &'static [&'static str],
    /// Numbers to list: the beginning of their names.
    constants: Option<&'static str>,
}

const GROUPS: &[Group] = &[
    Group {
        page: "kv_async_batch_config",
        summary: "how a manager and its batches work",
        header: "kv_async_batch_io.h",
        functions: &["kv_async_batch_default_config", "kv_async_batch_config_validate", "kv_async_batch_config_copy"],
        types: &["kv_async_batch_config_s"],
        constants: None,
    },
    Group {
        page: "kv_async_batch_manager",
        summary: "the life of a manager: settings, threads and a store",
        header: "kv_async_batch_io.h",
        functions: &[
            "kv_async_batch_manager_create",
            "kv_async_batch_manager_start",
            "kv_async_batch_manager_stop",
            "kv_async_batch_manager_destroy",
        ],
        types: &[],
        constants: None,
    },
    Group {
        page: "kv_async_batch",
        summary: "the life of a batch",
        header: "kv_async_batch_io.h",
        functions: &[
            "kv_async_batch_create",
            "kv_async_batch_submit",
            "kv_async_batch_wait",
            "kv_async_batch_cancel",
            "kv_async_batch_get_status",
            "kv_async_batch_destroy",
        ],
        types: &["kv_async_batch_complete_callback_t"],
        constants: None,
    },
    Group {
        page: "kv_async_batch_operations",
        summary: "add operations to a batch",
        header: "kv_async_batch_io.h",
        functions: &["kv_async_batch_put", "kv_async_batch_get", "kv_async_batch_delete"],
        types: &["kv_async_batch_callback_t", "kv_async_batch_operation_s"],
        constants: None,
    },
    Group {
        page: "kv_async_batch_stats",
        summary: "what batches and managers have done",
        header: "kv_async_batch_io.h",
        functions: &[
            "kv_async_batch_get_stats",
            "kv_async_batch_reset_stats",
            "kv_async_batch_print_stats",
            "kv_async_batch_manager_get_stats",
        ],
        types: &["kv_async_batch_stats_s"],
        constants: None,
    },
    Group {
        page: "kv_async_batch_names",
        summary: "names of operations and statuses, and a clock",
        header: "kv_async_batch_io.h",
        functions: &["kv_async_batch_op_name", "kv_async_batch_status_name", "kv_async_batch_get_timestamp_us"],
        types: &[],
        constants: None,
    },
    Group {
        page: "kv_error",
        summary: "codes, and the last error of each thread",
        header: "kv_error.h",
        functions: &[
            "kv_get_last_error",
            "kv_clear_error",
            "kv_get_error_name",
            "kv_get_error_desc",
            "kv_format_error",
            "kv_print_error",
            "kv_set_error",
            "g_error_ctx",
        ],
        types: &["kv_error_s", "kv_error_ctx_s"],
        constants: Some("KV_ERR_"),
    },
    Group {
        page: "kv_error_log",
        summary: "a log",
        header: "kv_error.h",
        functions: &["kv_error_init", "kv_log"],
        types: &[],
        constants: Some("KV_LOG_"),
    },
    Group {
        page: "kv_async_batch_manager_ext",
        summary: "a store by its URL, and its backup",
        header: "kv_batch_ext.h",
        functions: &["kv_async_batch_manager_create_at", "kv_async_batch_manager_backup"],
        types: &[],
        constants: None,
    },
    Group {
        page: "kv_async_batch_operations_ext",
        summary: "add updates, syncs, and puts that expire",
        header: "kv_batch_ext.h",
        functions: &["kv_async_batch_update", "kv_async_batch_put_expiring", "kv_async_batch_sync"],
        types: &[],
        constants: None,
    },
    Group {
        page: "kv_batch_outcome",
        summary: "what became of a batch, also after a crash",
        header: "kv_batch_ext.h",
        functions: &["kv_async_batch_get_id", "kv_async_batch_manager_get_outcome"],
        types: &["kv_batch_id_s"],
        constants: None,
    },
    Group {
        page: "kv_log_callback",
        summary: "hear the lines of the log",
        header: "kv_batch_ext.h",
        functions: &["kv_log_set_callback", "kv_log_set_level", "kv_log_get_level"],
        types: &["kv_log_callback_t"],
        constants: None,
    },
    Group {
        page: "kv_batch_version",
        summary: "the version of the library",
        header: "kv_batch_ext.h",
        functions: &["kv_batch_version", "kv_batch_version_number"],
        types: &[],
        constants: Some("KV_BATCH_VERSION"),
    },
    Group {
        page: "kv_uring_config",
        summary: "how a ring works",
        header: "kv_io_uring.h",
        functions: &[
            "kv_uring_config_create",
            "kv_uring_config_destroy",
            "kv_uring_config_set_queue_depth",
            "kv_uring_config_set_sq_poll",
            "kv_uring_config_set_iopoll",
            "kv_uring_config_set_buffer_size",
            "kv_uring_config_validate",
        ],
        types: &["kv_uring_config_s"],
        constants: None,
    },
    Group {
        page: "kv_uring",
        summary: "the life of a ring: reads, writes and syncs on descriptors of your own",
        header: "kv_io_uring.h",
        functions: &[
            "kv_uring_create",
            "kv_uring_start",
            "kv_uring_stop",
            "kv_uring_destroy",
            "kv_uring_is_supported",
            "kv_uring_probe_features",
        ],
        types: &[],
        constants: None,
    },
    Group {
        page: "kv_uring_operations",
        summary: "read, write and sync through a ring",
        header: "kv_io_uring.h",
        functions: &[
            "kv_uring_read_async",
            "kv_uring_write_async",
            "kv_uring_readv_async",
            "kv_uring_writev_async",
            "kv_uring_fsync_async",
        ],
        types: &["kv_uring_callback_t"],
        constants: None,
    },
    Group {
        page: "kv_uring_request",
        summary: "what becomes of a request of a ring",
        header: "kv_io_uring.h",
        functions: &[
            "kv_uring_wait_request",
            "kv_uring_cancel_request",
            "kv_uring_request_status",
            "kv_uring_request_result",
            "kv_uring_request_destroy",
        ],
        types: &["kv_uring_request_s"],
        constants: None,
    },
    Group {
        page: "kv_uring_completions",
        summary: "submit, and wait for any requests of a ring",
        header: "kv_io_uring.h",
        functions: &["kv_uring_submit", "kv_uring_submit_and_wait", "kv_uring_peek_completions", "kv_uring_wait_completions"],
        types: &[],
        constants: None,
    },
    Group {
        page: "kv_uring_batch",
        summary: "many requests of a ring handed over together",
        header: "kv_io_uring.h",
        functions: &[
            "kv_uring_batch_create",
            "kv_uring_batch_add_read",
            "kv_uring_batch_add_write",
            "kv_uring_batch_submit",
            "kv_uring_batch_destroy",
        ],
        types: &[],
        constants: None,
    },
    Group {
        page: "kv_uring_stats",
        summary: "what a ring has done and what it is doing",
        header: "kv_io_uring.h",
        functions: &[
            "kv_uring_get_stats",
            "kv_uring_reset_stats",
            "kv_uring_print_stats",
            "kv_uring_get_throughput",
            "kv_uring_get_latency",
            "kv_uring_dump_state",
            "kv_uring_set_debug_level",
            "kv_uring_validate_state",
        ],
        types: &["kv_uring_stats_s"],
        constants: None,
    },
    Group {
        page: "kv_uring_names",
        summary: "names of a ring's operations and statuses, and a clock",
        header: "kv_io_uring.h",
        functions: &["kv_uring_op_name", "kv_uring_status_name", "kv_uring_get_timestamp_us"],
        types: &[],
        constants: None,
    },
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn headers() -> BTreeMap<String, Header> {
    let mut headers = BTreeMap::new();
    for entry in std::fs::read_dir(root().join("include/kvserver")).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if name.ends_with(".h") {
            headers.insert(name, parse(&std::fs::read_to_string(entry.path()).unwrap()));
        }
    }
    headers
}

fn pages_dir() -> PathBuf {
    root().join("docs/man")
}

fn read_page(name: &str) -> String {
    std::fs::read_to_string(pages_dir().join(name)).unwrap_or_default()
}

/// What the NAME section of a page lists.
fn names(page: &str) -> Vec<&str> {
    let line = page.lines().skip_while(|line| *line != ".SH NAME").nth(1).unwrap_or_default();
    line.split(" \\-").next().unwrap().split(", ").collect()
}

#[test]
fn pages_are_what_the_headers_say() {
    let headers = headers();
    let mut stale = Vec::new();
    for group in GROUPS {
        let text = roff::page(group, &headers[group.header]);
        let path = pages_dir().join(format!("{}.3", group.page));
        if std::env::var_os("KVBATCH_BLESS").is_some() && std::fs::read_to_string(&path).unwrap_or_default() != text {
            std::fs::write(&path, &text).unwrap();
        }
        if std::fs::read_to_string(&path).unwrap_or_default() != text {
            stale.push(group.page);
        }
    }
    assert!(stale.is_empty(), "{stale:?} in docs/man: run KVBATCH_BLESS=1 cargo test --test man, and commit the pages");
}

#[test]
fn every_exported_name_has_one_page() {
    let exports = std::fs::read_to_string(root().join("ffi-tests/exports.txt")).unwrap();
    let mut pages: BTreeMap<&str, usize> = exports.lines().map(|name| (name, 0)).collect();
    let mut other = Vec::new();
    for entry in std::fs::read_dir(pages_dir()).unwrap().flatten() {
        let file = entry.file_name().into_string().unwrap();
        let Some(page) = file.strip_suffix(".3") else { continue };
        if !GROUPS.iter().any(|group| group.page == page) {
            other.push(format!("{file} is made from no group"));
        }
        for name in names(&read_page(&file)) {
            match pages.get_mut(name) {
                Some(count) => *count += 1,
                None => other.push(format!("{file} names {name}, which is not exported")),
            }
        }
    }
    let wrong: Vec<_> = pages.into_iter().filter(|(_, count)| *count != 1).collect();
    assert!(
        wrong.is_empty() && other.is_empty(),
        "names and their number of pages, which should be 1: {wrong:?}; {other:?}; put each name into a group of tests/man.rs"
    );
}

#[test]
fn every_field_and_callback_is_on_a_page() {
    let headers = headers();
    for (name, header) in &headers {
        for item in header.structs.keys().chain(header.callbacks.keys()) {
            let shown = GROUPS.iter().any(|group| group.header == name && group.types.contains(&item.as_str()));
            assert!(shown, "{name}: {item} is on no page; put it into a group of tests/man.rs");
        }
    }
}

#[test]
fn the_overview_leads_to_every_page_and_no_page_knows_the_version() {
    let overview = read_page("kvbatch.7");
    for group in GROUPS {
        assert!(overview.contains(&format!(".BR {} (3)", group.page)), "kvbatch.7 does not lead to {}(3)", group.page);
    }
    for page in std::fs::read_dir(pages_dir()).unwrap().flatten() {
        let text = std::fs::read_to_string(page.path()).unwrap();
        let title = text.lines().next().unwrap();
        assert!(title.starts_with(".TH ") && title.contains("\"kvbatch @VERSION@\""), "{}: {title}", page.path().display());
    }
}
