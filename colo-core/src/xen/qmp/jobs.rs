use super::{Event, QmpClient, QmpError};
use serde_json::{Value, json};
use std::path::Path;

impl QmpClient {
    /// Makes a block device out of a qcow2 image that QEMU can open, for reading and writing; no guest sees it.
    ///
    /// # Errors
    /// [`QmpError`]; a [`QmpError::Command`] for a name that is taken.
    pub fn add_qcow2(&mut self, node: &str, file: &Path) -> Result<(), QmpError> {
        let file = json!({ "driver": "file", "filename": file.to_string_lossy() });
        let arguments = json!({ "driver": "qcow2", "node-name": node, "file": file });
        self.execute("blockdev-add", Some(arguments)).map(drop)
    }

    /// Takes it away, and closes the image.
    ///
    /// # Errors
    /// [`QmpError`]; a [`QmpError::Command`] when there is none, or it is in use.
    pub fn remove_node(&mut self, node: &str) -> Result<(), QmpError> {
        self.execute("blockdev-del", Some(json!({ "node-name": node }))).map(drop)
    }

    /// Loads an internal snapshot of a block device: its state of the devices and of their memory into this QEMU, which is stopped and
    /// stays so, and its disk into that device. No other device takes part. `job` is a name for it, to be free again on return.
    ///
    /// # Errors
    /// [`QmpError`]; a [`QmpError::Job`] when it was begun, and did not succeed: then the devices are in no state to go on.
    pub fn load_snapshot(&mut self, job: &str, node: &str, snapshot: &str) -> Result<(), QmpError> {
        let arguments = json!({ "job-id": job, "tag": snapshot, "vmstate": node, "devices": [node] });
        self.execute("snapshot-load", Some(arguments))?;
        let is_of_job = |event: &Event| event.name == "JOB_STATUS_CHANGE" && event.data["id"] == job;
        self.wait_event("snapshot-load", |event| is_of_job(event) && event.data["status"] == "concluded")?;
        let ended = self.job_error(job);
        self.dismiss_job(job)?;
        // Nobody else waits for these.
        self.events.retain(|event| !is_of_job(event));
        match ended? {
            None => Ok(()),
            Some(description) => Err(QmpError::Job { job: "snapshot-load".into(), description }),
        }
    }

    /// Forgets what has become of a job that has ended.
    ///
    /// # Errors
    /// [`QmpError`]; a [`QmpError::Command`] when there is none, or it has not ended.
    pub fn dismiss_job(&mut self, job: &str) -> Result<(), QmpError> {
        self.execute("job-dismiss", Some(json!({ "id": job }))).map(drop)
    }

    /// Why a job that has ended did not succeed.
    fn job_error(&mut self, job: &str) -> Result<Option<String>, QmpError> {
        let command = "query-jobs";
        let reply = self.execute(command, None)?;
        let ended = reply.as_array().and_then(|jobs| jobs.iter().find(|ended| ended["id"] == job));
        match ended.map(|ended| ended.get("error").map(Value::as_str)) {
            Some(None) => Ok(None),
            Some(Some(Some(error))) => Ok(Some(error.to_owned())),
            _ => Err(self.protocol(command, "nothing about the job in the reply")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{against, converse};
    use super::*;
    use std::time::Duration;

    const LIMIT: Duration = Duration::from_secs(30);
    const DONE: &str = r#"{"return": {}, "id": ID}"#;

    fn event(job: &str, status: &str) -> String {
        format!(r#"{{"event": "JOB_STATUS_CHANGE", "data": {{"id": "{job}", "status": "{status}"}}}}"#)
    }

    /// What comes of it when QEMU answers so, one text to a command; and of the next command.
    fn load(limit: Duration, replies: &[String], then: impl FnOnce(Result<(), QmpError>, &mut QmpClient) + Send) {
        against(
            limit,
            |stream| converse(stream, replies),
            |client| {
                let mut client = client.unwrap();
                let loaded = client.load_snapshot("j", "node", "s");
                then(loaded, &mut client);
            },
        );
    }

    /// To `snapshot-load`, `query-jobs` and `job-dismiss`.
    fn replies(jobs: &str) -> Vec<String> {
        vec![
            [&*event("other", "concluded"), &event("j", "created"), DONE, &event("j", "concluded")].join("\n"),
            format!(r#"{{"return": {jobs}, "id": ID}}"#),
            [&*event("j", "null"), DONE].join("\n"),
            DONE.into(),
        ]
    }

    #[test]
    fn a_job_is_waited_for_and_forgotten() {
        load(
            LIMIT,
            &replies(r#"[{"id": "other", "error": "no"}, {"id": "j", "status": "concluded"}]"#),
            |loaded, client| {
                loaded.unwrap();
                assert_eq!(client.next_event().unwrap().data["id"], "other");
                assert_eq!(client.next_event(), None);
                client.execute("x", None).unwrap();
            },
        );
    }

    #[test]
    fn a_job_that_did_not_succeed_says_why() {
        load(LIMIT, &replies(r#"[{"id": "j", "error": "Error -22"}]"#), |loaded, client| {
            assert!(matches!(loaded, Err(QmpError::Job { description, .. }) if description == "Error -22"));
            // And is forgotten: the connection serves.
            client.execute("x", None).unwrap();
        });
        let refused = r#"{"error": {"class": "GenericError", "desc": "taken"}, "id": ID}"#;
        load(LIMIT, &[refused.into(), DONE.into()], |loaded, client| {
            assert!(matches!(loaded, Err(QmpError::Command { description, .. }) if description == "taken"));
            client.execute("x", None).unwrap();
        });
    }

    #[test]
    fn answers_that_are_none() {
        for jobs in ["[]", "{}", r#"[{"id": "other"}]"#, r#"[{"id": "j", "error": 7}]"#] {
            load(LIMIT, &replies(jobs), |loaded, _| {
                assert!(matches!(loaded, Err(QmpError::Protocol { .. })), "{jobs}: {loaded:?}");
            });
        }
        let unasked = [[DONE, DONE].join("\n")];
        load(LIMIT, &unasked, |loaded, client| {
            assert!(matches!(loaded, Err(QmpError::Protocol { what: "a reply to nothing", .. })), "{loaded:?}");
            assert!(matches!(client.execute("x", None), Err(QmpError::Failed)));
        });
        let silent = [[DONE, &event("other", "concluded")].join("\n")];
        load(Duration::from_millis(50), &silent, |loaded, client| {
            assert!(matches!(loaded, Err(QmpError::TimedOut { .. })), "{loaded:?}");
            assert!(matches!(client.execute("x", None), Err(QmpError::Failed)));
        });
    }
}
