BEGIN TRANSACTION;
CREATE TABLE adjudications (
	id INTEGER NOT NULL, 
	instance_id INTEGER NOT NULL, 
	user_id INTEGER NOT NULL, 
	acceptable_0 BOOLEAN NOT NULL, 
	acceptable_1 BOOLEAN NOT NULL, 
	preference VARCHAR(24) NOT NULL, 
	comment TEXT NOT NULL, 
	created DOUBLE NOT NULL, 
	CONSTRAINT pk_adjudications PRIMARY KEY (id), 
	CONSTRAINT fk_adjudications_instance_id FOREIGN KEY(instance_id) REFERENCES instances (id), 
	CONSTRAINT fk_adjudications_user_id FOREIGN KEY(user_id) REFERENCES users (id)
);
INSERT INTO "adjudications" VALUES(1,1,1,0,1,'tie','fair',1.79607212639217543601e+09);
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE answers (
	id INTEGER NOT NULL, 
	assignment_id INTEGER NOT NULL, 
	"key" VARCHAR(80) NOT NULL, 
	acceptable_a BOOLEAN NOT NULL, 
	acceptable_b BOOLEAN NOT NULL, 
	preference VARCHAR(24) NOT NULL, 
	quality VARCHAR(8) NOT NULL, 
	comment TEXT NOT NULL, 
	seconds DOUBLE, 
	created DOUBLE NOT NULL, 
	CONSTRAINT pk_answers PRIMARY KEY (id), 
	CONSTRAINT fk_answers_assignment_id FOREIGN KEY(assignment_id) REFERENCES assignments (id), 
	CONSTRAINT uq_answers_assignment_id_key UNIQUE (assignment_id, "key")
);
INSERT INTO "answers" VALUES(1,1,'k1:5217171bb6ce6ce8',1,0,'a-is-better','hard','schön 好
''; DROP TABLE users; --',12.5,1.79607212629495954512e+09);
INSERT INTO "answers" VALUES(2,2,'k2:bc0db218c378e356',1,1,'tie','','',NULL,1.79607212632491970065e+09);
INSERT INTO "answers" VALUES(3,1,'k3:273498407e945c86',0,0,'b-is-slightly-better','','on second thought',3.0,1.79607212633892846104e+09);
INSERT INTO "answers" VALUES(4,5,'k1:b3cb613d10f1a985',1,1,'b-is-better','good','',40.0,1.79607212635105824467e+09);
INSERT INTO "answers" VALUES(5,6,'k2:0960660a8a283979',0,1,'b-is-better','','',20.25,1.79607212636230373381e+09);
CREATE TABLE assignments (
	id INTEGER NOT NULL, 
	user_id INTEGER NOT NULL, 
	instance_id INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	swapped BOOLEAN NOT NULL, 
	later BOOLEAN NOT NULL, 
	released BOOLEAN NOT NULL, 
	created DOUBLE NOT NULL, 
	CONSTRAINT pk_assignments PRIMARY KEY (id), 
	CONSTRAINT fk_assignments_user_id FOREIGN KEY(user_id) REFERENCES users (id), 
	CONSTRAINT fk_assignments_instance_id FOREIGN KEY(instance_id) REFERENCES instances (id), 
	CONSTRAINT uq_assignments_user_id_instance_id UNIQUE (user_id, instance_id), 
	CONSTRAINT uq_assignments_user_id_position UNIQUE (user_id, position)
);
INSERT INTO "assignments" VALUES(1,2,1,1,0,0,0,1.79607212624162435529e+09);
INSERT INTO "assignments" VALUES(2,2,3,2,0,0,0,1.79607212624162435529e+09);
INSERT INTO "assignments" VALUES(3,2,4,3,1,1,0,1.79607212624162435529e+09);
INSERT INTO "assignments" VALUES(4,2,2,4,1,0,0,1.79607212624162435529e+09);
INSERT INTO "assignments" VALUES(5,3,2,1,1,0,0,1.79607212627964091299e+09);
INSERT INTO "assignments" VALUES(6,3,1,2,0,0,0,1.79607212627964091299e+09);
INSERT INTO "assignments" VALUES(7,3,4,3,1,0,0,1.79607212627964091299e+09);
INSERT INTO "assignments" VALUES(8,3,3,4,0,0,0,1.79607212627964091299e+09);
CREATE TABLE events (
	id INTEGER NOT NULL, 
	created DOUBLE NOT NULL, 
	user_id INTEGER, 
	what TEXT NOT NULL, 
	CONSTRAINT pk_events PRIMARY KEY (id), 
	CONSTRAINT fk_events_user_id FOREIGN KEY(user_id) REFERENCES users (id)
);
INSERT INTO "events" VALUES(1,1.79607212618234848974e+09,1,'invited ''tom'' as annotator');
INSERT INTO "events" VALUES(2,1796072126.19047,NULL,'shut ''zoé''');
CREATE TABLE instances (
	id INTEGER NOT NULL, 
	reference TEXT NOT NULL, 
	prompt TEXT NOT NULL, 
	model_0 TEXT NOT NULL, 
	completion_0 TEXT NOT NULL, 
	model_1 TEXT NOT NULL, 
	completion_1 TEXT NOT NULL, 
	wanted INTEGER NOT NULL, 
	gold TEXT, 
	CONSTRAINT pk_instances PRIMARY KEY (id)
);
INSERT INTO "instances" VALUES(1,'task_0','Prompt 0?','zebra-model','left 0','yak-model','right 0',2,NULL);
INSERT INTO "instances" VALUES(2,'task_1','Prompt 1?','zebra-model','left 1','yak-model','right 1',2,NULL);
INSERT INTO "instances" VALUES(3,'task_2','Prompt 2?','zebra-model','left 2','yak-model','right 2',2,NULL);
INSERT INTO "instances" VALUES(4,'task_3','Prompt 3?','zebra-model','left 3','yak-model','right 3',2,NULL);
CREATE TABLE invitations (
	id INTEGER NOT NULL, 
	token VARCHAR(64) NOT NULL, 
	name TEXT NOT NULL, 
	role VARCHAR(16) NOT NULL, 
	user_id INTEGER, 
	created DOUBLE NOT NULL, 
	expires DOUBLE NOT NULL, 
	used DOUBLE, 
	CONSTRAINT pk_invitations PRIMARY KEY (id), 
	CONSTRAINT uq_invitations_token UNIQUE (token), 
	CONSTRAINT fk_invitations_user_id FOREIGN KEY(user_id) REFERENCES users (id)
);
INSERT INTO "invitations" VALUES(1,'bd378780c638092d07a3ffc546b3f047207820f359b1547bd485c1e215018796','tom','annotator',NULL,1.79607212618045854572e+09,1.79667692618045854568e+09,NULL);
CREATE TABLE sessions (
	token VARCHAR(64) NOT NULL, 
	user_id INTEGER NOT NULL, 
	created DOUBLE NOT NULL, 
	seen DOUBLE NOT NULL, 
	CONSTRAINT pk_sessions PRIMARY KEY (token), 
	CONSTRAINT fk_sessions_user_id FOREIGN KEY(user_id) REFERENCES users (id)
);
INSERT INTO "sessions" VALUES('82b224a103819ef2cb49a1407f3d59a3a084bf1d236d4c1b0ac6af50269f3944',2,1.79607212619878268237e+09,1.79607212619878268237e+09);
CREATE TABLE study (
	id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	settings TEXT NOT NULL, 
	secret VARCHAR(64) NOT NULL, 
	created DOUBLE NOT NULL, 
	CONSTRAINT pk_study PRIMARY KEY (id)
);
INSERT INTO "study" VALUES(1,'A study','open','{"batch": 20, "guidelines": "# Be *fair*"}','c7a628ebdf96bd73895600d3e251da1c011f7e7b3ab310eea01c947444577b9a',1.7960721261121478081e+09);
CREATE TABLE users (
	id INTEGER NOT NULL, 
	handle VARCHAR(32) NOT NULL, 
	name TEXT NOT NULL, 
	folded TEXT NOT NULL, 
	role VARCHAR(16) NOT NULL, 
	password TEXT, 
	disabled BOOLEAN NOT NULL, 
	settings TEXT NOT NULL, 
	created DOUBLE NOT NULL, 
	CONSTRAINT pk_users PRIMARY KEY (id), 
	CONSTRAINT uq_users_handle UNIQUE (handle), 
	CONSTRAINT uq_users_folded UNIQUE (folded)
);
INSERT INTO "users" VALUES(1,'b52895f8f4e643cf','ada','ada','admin','$argon2id$v=19$m=8,t=1,p=1$pm8MSKOi5Oq14YNxpM+68w$KPfGS8sJuOdEnolu6evF/0NV1GayqJ4gLKkuDoWqDq0',0,'{}',1.79607212614615082734e+09);
INSERT INTO "users" VALUES(2,'31af77eda506f157','bob','bob','annotator','$argon2id$v=19$m=8,t=1,p=1$QDqT1bqsCKrJv38dPAJmKw$PlTot4r9CZj8QnrzMOR+qH0pfFy9Nww2YLVzh2ZGb7o',0,'{}',1.79607212615587425235e+09);
INSERT INTO "users" VALUES(3,'880ee33d1d4806e7','eve','eve','annotator','$argon2id$v=19$m=8,t=1,p=1$aLPDgk/JYrMCXed7ivrRmA$eVPvEP9KBmtGzbpklSQTLTdr1v8wg6E4uSWqlGqJz9A',0,'{}',1.79607212616713690753e+09);
INSERT INTO "users" VALUES(4,'3aa053db65d2afe4','zoé','zoé','annotator',NULL,1,'{}',1.79607212617224097249e+09);
CREATE INDEX ix_sessions_user_id ON sessions (user_id);
CREATE INDEX ix_assignments_instance_id ON assignments (instance_id);
CREATE INDEX ix_adjudications_instance_id ON adjudications (instance_id);
COMMIT;
