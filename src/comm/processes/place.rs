//! Which process this is, from what launchers leave in the environment.

use super::connect::{Place, setup};
use crate::comm::CommError;

/// Where launchers put a process's number and the number of processes.
const NAMES: [(&str, &str, &str); 5] = [
    ("scadles launch", "SCADLES_PROCESS", "SCADLES_PROCESSES"),
    ("torchrun", "RANK", "WORLD_SIZE"),
    ("Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("MPICH, Intel MPI", "PMI_RANK", "PMI_SIZE"),
    ("Slurm", "SLURM_PROCID", "SLURM_NTASKS"),
];

impl Place {
    /// The place that a launcher's variables describe; `lookup` reads one. What is `given` wins over them.
    ///
    /// # Errors
    /// [`CommError::Setup`]: nobody says the number of the process, or where the job meets, or a number is none.
    pub fn from_variables(
        lookup: &dyn Fn(&str) -> Option<String>,
        given: (Option<usize>, Option<usize>, Option<String>),
    ) -> Result<Self, CommError> {
        let number = |name: &str| -> Result<Option<usize>, CommError> {
            let Some(text) = lookup(name) else { return Ok(None) };
            let parsed = text.trim().parse();
            parsed.map(Some).map_err(|_| setup(format!("{name}=`{text}` is no number of a process")))
        };
        let mut found = (None, None);
        for (_, process, processes) in NAMES {
            if let (Some(process), Some(processes)) = (number(process)?, number(processes)?) {
                found = (Some(process), Some(processes));
                break;
            }
        }
        let (process, processes) = (given.0.or(found.0), given.1.or(found.1));
        let (Some(process), Some(processes)) = (process, processes) else {
            let launchers: Vec<&str> = NAMES.iter().map(|(launcher, ..)| *launcher).collect();
            return Err(setup(format!(
                "which process this is stands nowhere: start it with one of {}, or give --process and --processes",
                launchers.join(", ")
            )));
        };
        let master = || Some(format!("{}:{}", lookup("MASTER_ADDR")?, lookup("MASTER_PORT")?));
        let rendezvous = given.2.or_else(|| lookup("SCADLES_RENDEZVOUS")).or_else(master);
        let Some(rendezvous) = rendezvous.or_else(|| (processes == 1).then(String::new)) else {
            return Err(setup(
                "where the processes meet stands nowhere: give --rendezvous HOST:PORT of process 0, or MASTER_ADDR and MASTER_PORT"
                    .into(),
            ));
        };
        Ok(Self { process, processes, rendezvous })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(variables: &[(&str, &str)]) -> Result<Place, CommError> {
        let lookup =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string());
        Place::from_variables(&lookup, (None, None, None))
    }

    #[test]
    fn every_launcher_is_understood() {
        let expected = Place { process: 2, processes: 4, rendezvous: "edge0:4000".into() };
        for (_, process, processes) in NAMES {
            let found = place(&[(process, "2"), (processes, "4"), ("SCADLES_RENDEZVOUS", "edge0:4000")]);
            assert_eq!(found.unwrap(), expected, "{process}");
        }
        let torchrun =
            place(&[("RANK", "2"), ("WORLD_SIZE", "4"), ("MASTER_ADDR", "edge0"), ("MASTER_PORT", "4000")]);
        assert_eq!(torchrun.unwrap(), expected);
    }

    #[test]
    fn what_is_missing_or_no_number_is_named() {
        let error = |variables| place(variables).unwrap_err().to_string();
        assert!(error(&[]).contains("--process and --processes"), "{}", error(&[]));
        let unmet = [("RANK", "1"), ("WORLD_SIZE", "2")];
        assert!(error(&unmet).contains("--rendezvous"), "{}", error(&unmet));
        let wrong = [("RANK", "one"), ("WORLD_SIZE", "2")];
        assert!(error(&wrong).contains("RANK=`one`"), "{}", error(&wrong));
    }
}
