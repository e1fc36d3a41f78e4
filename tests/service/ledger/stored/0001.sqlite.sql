BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE attempts (
	campaign_id VARCHAR(120) NOT NULL, 
	number INTEGER NOT NULL, 
	started_at BIGINT NOT NULL, 
	claimed_at BIGINT, 
	heartbeat_at BIGINT, 
	ended_at BIGINT, 
	exit_code INTEGER, 
	spool_position BIGINT NOT NULL, 
	CONSTRAINT pk_attempts PRIMARY KEY (campaign_id, number), 
	CONSTRAINT fk_attempts_campaign_id_campaigns FOREIGN KEY(campaign_id) REFERENCES campaigns (id)
);
INSERT INTO "attempts" VALUES('c',1,1760000005000,1760000007000,1795415782577,NULL,NULL,3);
CREATE TABLE campaigns (
	id VARCHAR(120) NOT NULL, 
	name VARCHAR(200) NOT NULL, 
	state VARCHAR(20) NOT NULL, 
	reason VARCHAR(60) NOT NULL, 
	message TEXT NOT NULL, 
	since BIGINT NOT NULL, 
	created_at BIGINT NOT NULL, 
	specification JSON NOT NULL, 
	attempt INTEGER NOT NULL, 
	sequence BIGINT NOT NULL, 
	CONSTRAINT pk_campaigns PRIMARY KEY (id)
);
INSERT INTO "campaigns" VALUES('c','stored','RUNNING','driver_started','',1760000008000,1760000001000,'{"name": "stored", "arms": []}',1,7);
CREATE TABLE cursors (
	tracker VARCHAR(60) NOT NULL, 
	campaign_id VARCHAR(120) NOT NULL, 
	sequence BIGINT NOT NULL, 
	CONSTRAINT pk_cursors PRIMARY KEY (tracker, campaign_id), 
	CONSTRAINT fk_cursors_campaign_id_campaigns FOREIGN KEY(campaign_id) REFERENCES campaigns (id)
);
INSERT INTO "cursors" VALUES('mlflow','c',3);
CREATE TABLE events (
	campaign_id VARCHAR(120) NOT NULL, 
	sequence BIGINT NOT NULL, 
	at BIGINT NOT NULL, 
	kind VARCHAR(40) NOT NULL, 
	trial INTEGER, 
	body JSON NOT NULL, 
	CONSTRAINT pk_events PRIMARY KEY (campaign_id, sequence), 
	CONSTRAINT fk_events_campaign_id_campaigns FOREIGN KEY(campaign_id) REFERENCES campaigns (id)
);
INSERT INTO "events" VALUES('c',1,1760000002000,'campaign_created',NULL,'{"name": "stored"}');
INSERT INTO "events" VALUES('c',2,1760000004000,'campaign_moved',NULL,'{"state": "STARTING", "reason": "launching", "message": "attempt 1"}');
INSERT INTO "events" VALUES('c',3,1760000006000,'attempt_began',NULL,'{"attempt": 1}');
INSERT INTO "events" VALUES('c',4,1760000009000,'campaign_moved',NULL,'{"state": "RUNNING", "reason": "driver_started", "message": ""}');
INSERT INTO "events" VALUES('c',5,1,'trial_created',0,'{"arm": 0, "point": 0, "seed_index": 0, "config": {"lr": 0.1}, "ask": {"unit": [0.5]}}');
INSERT INTO "events" VALUES('c',7,3,'trial_moved',0,'{"state": "DIVERGED", "reason": "diverged", "message": ""}');
CREATE TABLE observations (
	campaign_id VARCHAR(120) NOT NULL, 
	trial INTEGER NOT NULL, 
	step INTEGER NOT NULL, 
	sequence BIGINT NOT NULL, 
	attempt INTEGER NOT NULL, 
	produced_at BIGINT NOT NULL, 
	metrics JSON NOT NULL, 
	CONSTRAINT pk_observations PRIMARY KEY (campaign_id, trial, step), 
	CONSTRAINT fk_observations_campaign_id_campaigns FOREIGN KEY(campaign_id) REFERENCES campaigns (id)
);
INSERT INTO "observations" VALUES('c',0,10,6,1,2,'{"loss": "NaN"}');
CREATE TABLE trials (
	campaign_id VARCHAR(120) NOT NULL, 
	number INTEGER NOT NULL, 
	arm INTEGER NOT NULL, 
	point INTEGER NOT NULL, 
	seed_index INTEGER NOT NULL, 
	config JSON NOT NULL, 
	ask JSON NOT NULL, 
	state VARCHAR(20) NOT NULL, 
	reason VARCHAR(60) NOT NULL, 
	message TEXT NOT NULL, 
	since BIGINT NOT NULL, 
	created_at BIGINT NOT NULL, 
	attempt INTEGER NOT NULL, 
	num_losses INTEGER NOT NULL, 
	last_step INTEGER NOT NULL, 
	objective FLOAT, 
	objective_kind VARCHAR(10), 
	device_seconds FLOAT NOT NULL, 
	CONSTRAINT pk_trials PRIMARY KEY (campaign_id, number), 
	CONSTRAINT fk_trials_campaign_id_campaigns FOREIGN KEY(campaign_id) REFERENCES campaigns (id)
);
INSERT INTO "trials" VALUES('c',0,0,0,0,'{"lr": 0.1}','{"unit": [0.5]}','DIVERGED','diverged','',3,1,1,0,10,NULL,'nan',0.5);
CREATE UNIQUE INDEX ix_observations_campaign_id_sequence ON observations (campaign_id, sequence);
CREATE INDEX ix_trials_campaign_id_state ON trials (campaign_id, state);
COMMIT;
