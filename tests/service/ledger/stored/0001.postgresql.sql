CREATE TABLE public.alembic_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE public.attempts (
    campaign_id character varying(120) NOT NULL,
    number integer NOT NULL,
    started_at bigint NOT NULL,
    claimed_at bigint,
    heartbeat_at bigint,
    ended_at bigint,
    exit_code integer,
    spool_position bigint NOT NULL
);
CREATE TABLE public.campaigns (
    id character varying(120) NOT NULL,
    name character varying(200) NOT NULL,
    state character varying(20) NOT NULL,
    reason character varying(60) NOT NULL,
    message text NOT NULL,
    since bigint NOT NULL,
    created_at bigint NOT NULL,
    specification json NOT NULL,
    attempt integer NOT NULL,
    sequence bigint NOT NULL
);
CREATE TABLE public.cursors (
    tracker character varying(60) NOT NULL,
    campaign_id character varying(120) NOT NULL,
    sequence bigint NOT NULL
);
CREATE TABLE public.events (
    campaign_id character varying(120) NOT NULL,
    sequence bigint NOT NULL,
    at bigint NOT NULL,
    kind character varying(40) NOT NULL,
    trial integer,
    body json NOT NULL
);
CREATE TABLE public.observations (
    campaign_id character varying(120) NOT NULL,
    trial integer NOT NULL,
    step integer NOT NULL,
    sequence bigint NOT NULL,
    attempt integer NOT NULL,
    produced_at bigint NOT NULL,
    metrics json NOT NULL
);
CREATE TABLE public.trials (
    campaign_id character varying(120) NOT NULL,
    number integer NOT NULL,
    arm integer NOT NULL,
    point integer NOT NULL,
    seed_index integer NOT NULL,
    config json NOT NULL,
    ask json NOT NULL,
    state character varying(20) NOT NULL,
    reason character varying(60) NOT NULL,
    message text NOT NULL,
    since bigint NOT NULL,
    created_at bigint NOT NULL,
    attempt integer NOT NULL,
    num_losses integer NOT NULL,
    last_step integer NOT NULL,
    objective double precision,
    objective_kind character varying(10),
    device_seconds double precision NOT NULL
);
INSERT INTO public.alembic_version VALUES ('0001');
INSERT INTO public.attempts VALUES ('c', 1, 1760000005000, 1760000007000, 1795415784001, NULL, NULL, 3);
INSERT INTO public.campaigns VALUES ('c', 'stored', 'RUNNING', 'driver_started', '', 1760000008000, 1760000001000, '{"name": "stored", "arms": []}', 1, 7);
INSERT INTO public.cursors VALUES ('mlflow', 'c', 3);
INSERT INTO public.events VALUES ('c', 1, 1760000002000, 'campaign_created', NULL, '{"name": "stored"}');
INSERT INTO public.events VALUES ('c', 2, 1760000004000, 'campaign_moved', NULL, '{"state": "STARTING", "reason": "launching", "message": "attempt 1"}');
INSERT INTO public.events VALUES ('c', 3, 1760000006000, 'attempt_began', NULL, '{"attempt": 1}');
INSERT INTO public.events VALUES ('c', 4, 1760000009000, 'campaign_moved', NULL, '{"state": "RUNNING", "reason": "driver_started", "message": ""}');
INSERT INTO public.events VALUES ('c', 5, 1, 'trial_created', 0, '{"arm": 0, "point": 0, "seed_index": 0, "config": {"lr": 0.1}, "ask": {"unit": [0.5]}}');
INSERT INTO public.events VALUES ('c', 7, 3, 'trial_moved', 0, '{"state": "DIVERGED", "reason": "diverged", "message": ""}');
INSERT INTO public.observations VALUES ('c', 0, 10, 6, 1, 2, '{"loss": "NaN"}');
INSERT INTO public.trials VALUES ('c', 0, 0, 0, 0, '{"lr": 0.1}', '{"unit": [0.5]}', 'DIVERGED', 'diverged', '', 3, 1, 1, 0, 10, NULL, 'nan', 0.5);
ALTER TABLE ONLY public.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY public.attempts
    ADD CONSTRAINT pk_attempts PRIMARY KEY (campaign_id, number);
ALTER TABLE ONLY public.campaigns
    ADD CONSTRAINT pk_campaigns PRIMARY KEY (id);
ALTER TABLE ONLY public.cursors
    ADD CONSTRAINT pk_cursors PRIMARY KEY (tracker, campaign_id);
ALTER TABLE ONLY public.events
    ADD CONSTRAINT pk_events PRIMARY KEY (campaign_id, sequence);
ALTER TABLE ONLY public.observations
    ADD CONSTRAINT pk_observations PRIMARY KEY (campaign_id, trial, step);
ALTER TABLE ONLY public.trials
    ADD CONSTRAINT pk_trials PRIMARY KEY (campaign_id, number);
CREATE UNIQUE INDEX ix_observations_campaign_id_sequence ON public.observations USING btree (campaign_id, sequence);
CREATE INDEX ix_trials_campaign_id_state ON public.trials USING btree (campaign_id, state);
ALTER TABLE ONLY public.attempts
    ADD CONSTRAINT fk_attempts_campaign_id_campaigns FOREIGN KEY (campaign_id) REFERENCES public.campaigns(id);
ALTER TABLE ONLY public.cursors
    ADD CONSTRAINT fk_cursors_campaign_id_campaigns FOREIGN KEY (campaign_id) REFERENCES public.campaigns(id);
ALTER TABLE ONLY public.events
    ADD CONSTRAINT fk_events_campaign_id_campaigns FOREIGN KEY (campaign_id) REFERENCES public.campaigns(id);
ALTER TABLE ONLY public.observations
    ADD CONSTRAINT fk_observations_campaign_id_campaigns FOREIGN KEY (campaign_id) REFERENCES public.campaigns(id);
ALTER TABLE ONLY public.trials
    ADD CONSTRAINT fk_trials_campaign_id_campaigns FOREIGN KEY (campaign_id) REFERENCES public.campaigns(id);
