-- name: job
-- Return the job's identity, epoch, digests and costs.
select uuid, epoch, digest, tasks, naming, journal, spent, adding from job where id = 1

-- name: raise_epoch
-- Begin a new run and fence off older writers. The run gets a random name, which differs in a copy of the job too.
update job set epoch = epoch + 1 where id = 1 returning epoch, lower(hex(randomblob(8))) as run

-- name: epoch
-- Return the epoch of the run that may write.
select epoch from job where id = 1

-- name: name
-- Return the job's name.
select name from job where id = 1

-- name: set_name
-- Store the job's name, that of its first manifest.
update job set name = :name where id = 1

-- name: set_journal
-- Store how many bytes of the journal are in the database.
update job set journal = :journal where id = 1

-- name: set_identity
-- Give a rebuilt database the journal's identity, and the time of the job's first purchase.
update job set uuid = :uuid, epoch = :epoch, created_at = :began_at where id = 1

-- name: by_ref
-- Return the task with a reference.
select task.*, draft.request, draft.name from task join draft on draft.task_id = task.id where ref = :ref

-- name: restore
-- Write a row from the journal; the only write that is not guarded by a state.
update task set state = :state, due_at = :due_at, generation = :generation, ref = :ref, spent = :spent,
    remote_id = :remote_id, attempts = :attempts, throttles = :throttles, doubts = :doubts, looks = :looks, failures = :failures,
    refreshes = :refreshes, adopted = :adopted, sent_boot = :sent_boot, sent_seconds = :sent_seconds,
    submitted_at = :submitted_at, since = :since, finished_at = :finished_at,
    reason = :reason, code = :code, message = :message, evidence = :evidence
  where id = :id

-- name: restore_output
-- Insert a file that the journal has.
insert into output (task_id, number, url, file, bytes, sha256, media_type)
  values (:task_id, :number, '', :file, :bytes, :sha256, :media_type)
  on conflict (task_id, number) do nothing

-- name: set_digest
-- Store the digest of the drafts added last, and the sum of their keys. What was bought may stand elsewhere now.
update job set digest = :digest, tasks = :tasks, naming = :naming, adding = '', planned = 0,
    arrangement = arrangement + 1
  where id = 1

-- name: rearrange
-- Note that tasks stand elsewhere in the manifest, or that there are more of them.
update job set arrangement = arrangement + 1 where id = 1

-- name: begin_pages
-- Store what drafts are added in pages from now on, and how many there are.
update job set digest = '', tasks = :tasks, naming = :naming, adding = :digest, planned = :planned where id = 1

-- name: end_pages
-- Record that all drafts are in that were added in pages.
update job set digest = adding, adding = '', planned = 0 where id = 1 and adding <> ''

-- name: has_begun
-- Return whether a task was ever sent, or is anything but to be bought.
select exists (select 1 from task indexed by task_goods where submitted_at is not null)
    or exists (select 1 from tally where state <> 'queued' and count > 0)

-- name: has_unbought
-- Return whether a task of the manifest waits to be bought.
select exists (select 1 from tally where state = 'queued' and not gone and count > 0)

-- name: last_position
-- Return the last position in the manifest that a draft was added for.
select coalesce(max(position), 0) from draft

-- name: release
-- Make the tasks due that were added at some positions and held back until they were compared.
update task set due_at = 0
  where id in (select task_id from draft where position between :first and :last)
    and state = 'queued' and due_at = 253402300801.0

-- name: spent
-- Return the most that the job can have cost.
select spent from job where id = 1

-- name: has_ever_sent
-- Return whether a request was ever sent; used only for a job that is not in its account's register.
select exists (select 1 from task where submitted_at is not null)

-- name: has_remote_ids
-- Return whether a provider has ever accepted a task of this job.
select exists (select 1 from task where provider = :provider and remote_id is not null)
  or exists (select 1 from former where provider = :provider)

-- name: has_remote_ids_of
-- Return whether a provider has ever accepted a task of an operation of this job.
select exists (
  select 1 from task where provider = :provider and remote_id is not null and operation = :operation)

-- name: last_sent_at
-- Return when the latest request was sent.
select max(submitted_at) from task

-- name: origin
-- Return the host and the account that a provider's tasks of this job are bound to.
select origin, account from provider where name = :name

-- name: set_origin
-- Bind a provider's tasks of this job to a host and an account.
insert into provider (name, origin, account) values (:name, :origin, :account)
  on conflict (name) do update set origin = excluded.origin, account = excluded.account

-- name: bound_providers
-- Return every provider that this job has ever used.
select name from provider

-- name: has_unfinished
-- Return whether a provider has tasks that are paid, or may be, and not downloaded yet.
select exists (select 1 from task where provider = :provider and state in ('submitting', 'in_doubt', 'held'))
    or exists (select 1 from task where provider = :provider and state in ('running', 'ready') and due_at is not null)

-- name: unschedule_queued
-- Make unbought tasks not due until their drafts are added again.
update task set due_at = null where state = 'queued' and due_at is not null

-- name: clear_positions
-- Mark every draft as removed from the manifest until it is added again.
update draft set position = null, last_position = position where position is not null

-- name: forget_positions
-- Forget where the drafts stood that had left the manifest already before these were added.
update draft set last_position = null where position is null and last_position is not null

-- name: without_goods
-- Return tasks that were sent, or may have been, and whose goods are not known.
select task.id, provider, operation, model, key, repeat, request from task indexed by task_goods
  join draft on draft.task_id = task.id
  where goods = '' and submitted_at is not null order by task.id limit :limit

-- name: set_goods
-- Store what a task buys.
update task set goods = :goods where id = :id

-- name: has_bought_goods
-- Return whether something was bought, or may have been, that has these goods.
select exists (select 1 from task indexed by task_goods
  where goods = :goods and submitted_at is not null and (state <> 'queued' or doubts > 0))

-- name: rewrite_goods
-- Store what was bought by tasks that have left the manifest as the manifest asks for it now.
update task set goods = :goods where goods = :before and submitted_at is not null
  and (state <> 'queued' or doubts > 0) and id in (select task_id from draft where position is null)

-- name: has_left_purchase
-- Return whether something that was bought, or may have been, has left the manifest.
select exists (select 1 from draft join task on task.id = draft.task_id
  where draft.position is null and submitted_at is not null and (state <> 'queued' or doubts > 0))

-- name: left_purchases
-- Return what was bought, or may have been, and left the manifest when drafts were added last, by its last position.
select key, state, provider, operation, model, last_position as position, repeat, vars, request, name
  from draft join task on task.id = draft.task_id
  where draft.position is null and last_position is not null and submitted_at is not null
    and (state <> 'queued' or doubts > 0)
  order by last_position limit :limit

-- name: unsent_rows
-- Return tasks of the manifest that were never sent: those at some positions, and the newest ones.
select key, state, provider, operation, model, position, repeat, vars, request, name
  from draft join task on task.id = draft.task_id
  where position in (select value from json_each(:positions))
    and state = 'queued' and due_at is not null and submitted_at is null
union
select key, state, provider, operation, model, position, repeat, vars, request, name
  from (select id as newest from task order by id desc limit :limit) join task on task.id = newest
    join draft on draft.task_id = task.id
  where position is not null and state = 'queued' and due_at is not null and submitted_at is null
order by position

-- name: last_id
-- Return the highest id of a task.
select coalesce(max(id), 0) from task

-- name: bought_before
-- Return new tasks of a range of ids whose goods a task has that left the manifest, which was bought or may have been.
-- Where several have them, the one that has come furthest.
select fresh.id as fresh_id, bought.id as bought_id
  from task as fresh join task as bought on bought.id = (
    select old.id from task as old indexed by task_goods join draft on draft.task_id = old.id
      where old.goods = fresh.goods and old.submitted_at is not null and draft.position is null
        and (old.state <> 'queued' or old.doubts > 0)
      order by instr('done ready running in_doubt submitting held stranded failed queued', old.state), old.id limit 1)
  where fresh.id > :after and fresh.id <= :until and fresh.state = 'queued' and fresh.due_at is not null
    and fresh.submitted_at is null and fresh.goods <> ''

-- name: restated
-- Return a row that was bought beside the new one that asks for the same goods.
select task.key, task.state, draft.request, now.request as fresh_request, now.position as fresh_position
  from task join draft on draft.task_id = task.id, task as fresh join draft as now on now.task_id = fresh.id
  where task.id = :bought_id and fresh.id = :fresh_id

-- name: take_place
-- Put a row that was bought where a new one stands in the manifest. Its key, request and name stay as they are.
update draft set position = now.position, repeat = now.repeat, vars = now.vars,
    name = case when :rename then now.name else draft.name end
  from draft as now where now.task_id = :fresh_id and draft.task_id = :bought_id and draft.position is null

-- name: take_operation
-- Call the operation of a row that was bought as the spec does now, find its images where they are now, and send it
-- again if that is due.
update task set operation = fresh.operation, pictures = fresh.pictures,
    due_at = case task.state when 'queued' then 0 else task.due_at end
  from task as fresh where fresh.id = :fresh_id and task.id = :bought_id

-- name: delete_unsent
-- Delete a row that was never sent.
delete from task where id = :id and state = 'queued' and submitted_at is null

-- name: add_task
-- Insert a draft as a row; a row with that key is kept and made due again. The paths of its images may have changed.
insert into task (key, provider, operation, model, state, due_at, ref, goods, fingerprint, slots, cost, pictures)
  values (:key, :provider, :operation, :model, 'queued', :due_at, :ref, :goods, :fingerprint, :slots, :cost, :pictures)
  on conflict (key) do update set due_at = case state when 'queued' then excluded.due_at else due_at end,
    goods = case when excluded.goods <> '' and (goods = '' or submitted_at is null) then excluded.goods else goods end,
    cost = case when state in ('queued', 'failed') then excluded.cost else cost end,
    pictures = case when :gone then pictures else excluded.pictures end
    where state in ('queued', 'failed') or (pictures <> excluded.pictures and not :gone)

-- name: add_draft
-- Insert the manifest's values of a row; a name changes only while the task has no files.
insert into draft (task_id, position, repeat, vars, request, name, queued_at)
  select id, :position, :repeat, :vars, :request, :name, :now from task where key = :key
  on conflict (task_id) do update set position = coalesce(excluded.position, position),
    vars = case when excluded.position is null then vars else excluded.vars end,
    name = case when not :rename and (select state from task where id = task_id) in ('done', 'ready') then name
      else excluded.name end

-- name: wake
-- At the start of a run, make all paid or doubtful tasks due now, whatever the clock showed before. Absences from a
-- provider's list must lie apart, and this poll may follow the last at once, so they count again from 0. A queued task
-- waits no longer than the longest back-off (15 minutes), and deadlines count from now at the latest: otherwise a wall
-- clock that was set back would turn a minute into a day, and a deadline would never pass. After a long pause each run
-- has some time left (`since`). What is ready is due since it was finished, so that the oldest outputs are fetched first.
update task set due_at = case state when 'queued' then :now + 900.0
      when 'ready' then min(coalesce(finished_at, :now), :now) else :now end, failures = 0, looks = 0,
    since = min(max(since, :since), :now)
  where id in (
    select id from task where state in ('running', 'ready', 'in_doubt')
    union all
    -- in this order, or a million rows would be read
    select task.id from tally cross join task on task.state = 'queued' and task.provider = tally.provider
        and task.due_at > :now + 900.0 and task.due_at < 253402300800.0
      where tally.state = 'queued' and not tally.gone and tally.count > 0)

-- name: rest
-- Let unbought tasks rest until the next run: due at the end of the year 9999, they are neither bought nor waited for.
update task set due_at = 253402300800.0
  where id in (select value from json_each(:ids)) and state = 'queued' and due_at is not null

-- name: end_rest
-- Make the tasks that rested in the last run due again.
update task set due_at = 0 where id in (
  select task.id from tally cross join task on task.state = 'queued' and task.provider = tally.provider
      and task.due_at >= 253402300800.0
    where tally.state = 'queued' and not tally.gone and tally.count > 0)

-- name: queued_by_id
-- Return the tasks with these ids that are still to be bought.
select task.*, draft.request, draft.name from task join draft on draft.task_id = task.id
  where task.id in (select value from json_each(:ids)) and state = 'queued' order by task.id

-- name: linked
-- Return a page of the tasks of the manifest whose outputs another job has paid for, and that a user may buy anew.
select task.*, draft.request, draft.name from task join draft on draft.task_id = task.id
  where state in ('done', 'stranded') and evidence like 'bought in %' and position is not null and task.id > :after
  order by task.id limit :limit

-- name: claim_queued
-- Return the next task to buy: due, within the window, and without a duplicate in doubt. Tasks that wait for their
-- images are excluded.
select task.*, draft.request, draft.name from task join draft on draft.task_id = task.id
  where provider = :provider and state = 'queued' and due_at <= :now and slots <= :free_slots
    and id not in (select value from json_each(:exclude))
    and (fingerprint = '' or not exists (
      select 1 from task as duplicate where duplicate.fingerprint = task.fingerprint and duplicate.fingerprint <> ''
        and duplicate.state = 'in_doubt'))
  order by due_at, id limit 1

-- name: claim
-- Return due tasks of one state, the longest due first.
select task.*, draft.request, draft.name from task join draft on draft.task_id = task.id
  where provider = :provider and state = :state and due_at <= :now
    and id not in (select value from json_each(:exclude))
  order by due_at, id limit :limit

-- name: claim_group
-- Return due tasks of one state whose operations can share a call, filled up with those due soon.
select task.*, '' as request, '' as name from task
  where provider = :provider and state = :state and due_at <= :soon
    and operation in (select value from json_each(:operations))
    and id not in (select value from json_each(:exclude))
  order by due_at, id limit :limit

-- name: postpone
-- Set the next due time of a claimed task.
update task set due_at = :due_at where id = :id and state = :state

-- name: settle
-- Write a task if its row has not changed meanwhile.
update task set state = :state, due_at = :due_at, generation = :generation, ref = :ref, spent = :spent,
    remote_id = :remote_id, attempts = :attempts, throttles = :throttles, doubts = :doubts, looks = :looks, failures = :failures,
    refreshes = :refreshes, adopted = :adopted, sent_boot = :sent_boot, sent_seconds = :sent_seconds,
    submitted_at = :submitted_at, since = :since, finished_at = :finished_at,
    reason = :reason, code = :code, message = :message, evidence = :evidence
  where id = :id and state = :expected_state and generation = :expected_generation

-- name: unschedule_removed
-- Make a task that is to be bought again not due, if its draft was removed from the manifest.
update task set due_at = null where id = :id and state = 'queued'
  and exists (select 1 from draft where task_id = :id and position is null)

-- name: put_output
-- Insert a link, or replace the link of a known output; its saved file is kept.
insert into output (task_id, number, url) values (:task_id, :number, :url)
  on conflict (task_id, number) do update set url = excluded.url

-- name: record_file
-- Store name, size and checksum of a file before the file has its name.
update output set file = :file, bytes = :bytes, sha256 = :sha256, media_type = :media_type
  where task_id = :task_id and number = :number

-- name: outputs
-- Return a task's outputs in order.
select number, url, file, bytes, sha256, media_type from output where task_id = :task_id order by number

-- name: drop_outputs
-- Delete the outputs of a task that has a new generation or another id.
delete from output where task_id = :task_id

-- name: next_due
-- Return when a stage has work again.
select min(due_at) from task where provider = :provider and state = :state and due_at is not null

-- name: next_due_group
-- Return when a stage has work again, for some operations.
select min(due_at) from task where provider = :provider and state = :state and due_at is not null
  and operation in (select value from json_each(:operations))

-- name: poll_outlook
-- Return when the first poll is due, when the nth is, and whether a task could be bought now.
select (select min(due_at) from task where provider = :provider and state = :state and due_at is not null
      and operation in (select value from json_each(:operations))) as oldest,
    (select due_at from task where provider = :provider and state = :state and due_at is not null
      and operation in (select value from json_each(:operations)) order by due_at limit 1 offset :nth - 1) as last,
    exists (select 1 from task where provider = :provider and state = 'queued' and due_at <= :now) as queued

-- name: has_work
-- Return whether a provider has tasks that are being submitted, or that need no user. Queued tasks are checked last,
-- since a million of them may be waiting.
select case
  when exists (select 1 from task where provider = :provider and state = 'submitting') then 1
  when exists (select 1 from task indexed by task_state where provider = :provider and due_at is not null
    and state <> 'queued' and state in (select value from json_each(:states))
    -- not files whose host is away, unless they are fetched soon
    and (refreshes = 0 or due_at <= :files_until)
    and (:unlisted or state <> 'running' or coalesce(reason, '') <> 'unlisted_state')) then 1
  else exists (select 1 from task where provider = :provider and due_at is not null
    and state = 'queued' and state in (select value from json_each(:states))
    -- not tasks that rest
    and due_at < 253402300800.0
    -- not tasks that wait for free slots in the window
    and slots <= :free_slots
    -- not tasks that wait for a duplicate in doubt, which is not due until the next run
    and not (fingerprint <> '' and exists (
      select 1 from task as duplicate where duplicate.fingerprint = task.fingerprint and duplicate.fingerprint <> ''
        and duplicate.state = 'in_doubt' and duplicate.due_at is null))) end

-- name: queued_like
-- Return tasks to buy with some fingerprints.
select task.*, draft.request, draft.name
  from json_each(:fingerprints) cross join task on task.fingerprint = json_each.value and task.fingerprint <> ''
    join draft on draft.task_id = task.id
  where task.state = 'queued' and task.provider = :provider and due_at <> 253402300800.0 order by task.id limit :limit

-- name: open_like
-- Return how many tasks with some fingerprints may own a row that nobody owns.
select fingerprint, count(*) from json_each(:fingerprints) join task
    on task.fingerprint = json_each.value and task.fingerprint <> ''
  where task.state in ('submitting', 'in_doubt', 'held') group by fingerprint

-- name: equal_files
-- Return tasks with different requests that have a file with the same checksum, as JSON.
select json_group_array(json_object('key', key, 'provider', provider, 'remote_id', remote_id, 'adopted', adopted))
  from output join task on task.id = output.task_id join draft on draft.task_id = task.id
  where sha256 is not null group by sha256 having count(distinct model || char(10) || request) > 1 limit :limit

-- name: has_queued
-- Return whether one of the first tasks to buy is of some operations, or there are too many to tell.
select count(*) = 2000 or coalesce(max(operation in (select value from json_each(:operations))), 0) from (
  select operation from task where state = 'queued' and provider = :provider and due_at <> 253402300800.0 limit 2000)

-- name: in_state
-- Return every task of a state that few tasks are in.
select task.*, draft.request, draft.name from task indexed by task_state join draft on draft.task_id = task.id
  where state = :state order by id

-- name: suspects
-- Return how many tasks of a state were refused and are not known to have cost nothing, by what is on record of it.
select evidence, count(*) from task indexed by task_state where state = :state and evidence glob :prefix || '*'
  group by evidence order by count(*) desc, evidence limit :limit

-- name: unserved
-- Return tasks whose files were paid for and not served, for a network or a link, so that they may be there by now.
select task.*, draft.request, draft.name from task indexed by task_state join draft on draft.task_id = task.id
  where state = 'stranded' and reason in ('network', 'timeout', 'http', 'too_slow', 'link_expired', 'link_denied',
      'redirect_denied', 'redirects') and submitted_at >= :since order by task.id limit :limit

-- name: waiting_files
-- Return why files that are paid for have not come yet: how many, by reason, with an example of what was said.
select reason, min(coalesce(message, '')) as message, count(*) as count
  from task indexed by task_faults where state in ('running', 'ready') and reason is not null and finished_at is not null
  group by reason order by count(*) desc limit 5

-- name: unlisted_states
-- Return the state words of running tasks that their specs do not list: how many have each.
select coalesce(code, '') as word, count(*) as count
  from task indexed by task_faults where state = 'running' and reason = 'unlisted_state'
  group by code order by count(*) desc, code limit 5

-- name: late_candidates
-- Return tasks that a provider may have completed after all: it reported them as failed, or their deadline passed while
-- it was still at work. Of the latest of them, those bought since then. Tasks that the user gave up or that content
-- moderation refused are left out.
select task.*, '' as request, '' as name from task
  where id in (select id from task where state = :state and provider = :provider and due_at is null order by id desc limit :scan_limit)
    and remote_id is not null and submitted_at >= :since
    and case state when 'stranded' then reason = 'stuck' else coalesce(reason, '') not in ('abandoned', 'moderation') end
    and operation in (select value from json_each(:operations))
  order by id desc limit :limit

-- name: tasks_ever_sent
-- Return every task for which a request was ever sent.
select task.*, draft.request, draft.name from task join draft on draft.task_id = task.id
  where provider = :provider and submitted_at is not null order by id

-- name: by_key
-- Return tasks whose key (hexadecimal) has a prefix.
select task.*, draft.request, draft.name from task join draft on draft.task_id = task.id
  where key >= :key and key < :key || 'g' order by id limit 3

-- name: providers_with_work
-- Return the providers with unfinished tasks.
select distinct provider from tally where count > 0 and (state in ('submitting', 'in_doubt', 'running', 'ready')
  or (state = 'queued' and not gone) or (:include_finished and state in ('failed', 'stranded', 'done')))

-- name: operations
-- Return what the tasks are made with.
select provider, operation, model from operation order by provider, operation, model

-- name: providers_with_losses
-- Return the providers with failed or stranded tasks.
select distinct provider from tally where count > 0 and state in ('failed', 'stranded')

-- name: saved_files
-- Return every file of every done task, with the task's name in the current manifest.
select task.id, key, name, number, file, (select count(*) from output as every where every.task_id = task.id)
  from task join draft on draft.task_id = task.id join output on output.task_id = task.id
  where state = 'done' and file is not null order by task.id, number

-- name: rename_output
-- Store the new name of a file.
update output set file = :file where task_id = :task_id and number = :number

-- name: get_draft
-- Return the draft of a task.
select key, state, provider, operation, model, position, repeat, vars, request, name, goods, submitted_at, doubts
  from task join draft on draft.task_id = task.id where key = :key

-- name: counts
-- Return the number of tasks in each state, those of the manifest that are not added yet included.
select state, sum(count) from (select state, count from tally
    union all select 'queued', planned - coalesce((select max(position) from draft), 0) from job where planned > 0)
  group by state having sum(count) > 0

-- name: counts_by_provider
-- Return the number of tasks by provider and state, without unbought tasks removed from the manifest.
select provider, state, count from tally where not gone and count > 0

-- name: removed_unsent
-- Return the number of unbought tasks removed from the manifest.
select coalesce(sum(count), 0) from tally where gone

-- name: slots_taken
-- Return how many slots of the account's window this job's tasks take. A submit that was refused takes none.
select coalesce(sum(slots), 0) from task where provider = :provider and state in ('submitting', 'in_doubt', 'running')
  and not (state = 'in_doubt' and evidence like 'refused, and looked up: %')

-- name: unfetched_counts
-- Return how many tasks run, are ready, and are either after a download that failed. Tasks that rest are left out.
select coalesce(sum(state = 'running' and refreshes = 0), 0),
    coalesce(sum(state = 'ready' and refreshes = 0 and failures = 0), 0),
    coalesce(sum(refreshes > 0 or (state = 'ready' and failures > 0)), 0)
  from task where provider = :provider and state in ('running', 'ready') and due_at is not null

-- name: keep_former_id
-- Keep an id that a task no longer has, of an earlier purchase or given by mistake: no reconciliation, of this task or a
-- duplicate, may match it to a lost send.
insert or ignore into former (provider, remote_id) values (:provider, :remote_id)

-- name: former_ids
-- Return the ids that tasks no longer have.
select provider, remote_id from former

-- name: purchases
-- Return every task that was ever sent, or that the user wants to be bought once more.
select task.*, draft.request, draft.name from task join draft on draft.task_id = task.id
  where state <> 'queued' or submitted_at is not null or generation > 1 order by task.id

-- name: claimed_ids
-- Return the remote ids that a task has, or had before it was bought again.
select remote_id from task where provider = :provider and remote_id in (select value from json_each(:remote_ids))
  union all
  select remote_id from former where provider = :provider and remote_id in (select value from json_each(:remote_ids))

-- name: has_ambiguous_request
-- Return whether another request that was sent has the same fingerprint.
select exists (select 1 from task join draft on draft.task_id = task.id
  where fingerprint = :fingerprint and fingerprint <> '' and draft.request <> :request and submitted_at is not null)

-- name: duplicate_sends
-- Return when the duplicates of a task were sent, in any state, unless their ids came from their own answers. The quiet
-- time of a doubt counts from the latest of these sends.
select sent_boot, sent_seconds from task
  where fingerprint = :fingerprint and fingerprint <> ''
    and sent_boot is not null and (state in ('submitting', 'in_doubt') or adopted = 1)

-- name: open_duplicates
-- Return how many tasks with a fingerprint may own a row that nobody owns.
select count(*) from task where fingerprint = :fingerprint and fingerprint <> ''
  and state in ('submitting', 'in_doubt', 'held')

-- name: ids_of_duplicates
-- Return the ids of tasks with a fingerprint that were sent since a time.
select remote_id from task where fingerprint = :fingerprint and fingerprint <> ''
  and remote_id is not null and submitted_at >= :since

-- name: has_adopted_duplicate
-- Return whether a task with this fingerprint was found in a list, and so may have taken another's row.
select exists (select 1 from task where fingerprint = :fingerprint and fingerprint <> '' and adopted and remote_id is not null)

-- name: is_duplicate_submitting
-- Return whether a task with this fingerprint is being submitted.
select exists (select 1 from task where fingerprint = :fingerprint and fingerprint <> '' and state = 'submitting')

-- name: is_model_running
-- Return whether a task of this model is running, whose answers will show how the provider returns requests.
select exists (select 1 from task where state = 'running' and provider = :provider and model = :model)

-- name: began_at
-- Return when the job was made.
select created_at from job where id = 1

-- name: witnesses
-- Return the tasks whose ids came in the answers to their own submits, the latest first. Reads every row, once in a run
-- that has a doubt.
select task.*, '' as request, '' as name from task
  where provider = :provider and remote_id is not null and (adopted = 0 or :include_adopted) and submitted_at is not null
    and sent_boot is not null and operation in (select value from json_each(:operations))
  order by submitted_at desc limit :limit

-- name: bought_again_count
-- Return how many tasks were bought once more since a time after a submit whose answer was lost. Reads every row, once
-- where a list is contradicted.
select count(*) from task where provider = :provider and doubts > 0 and (adopted = 0 or doubts > 1)
  and remote_id is not null and submitted_at >= :since

-- name: bought_again
-- Return the latest tasks of one list that were bought once more, between two times, after a submit whose answer was lost;
-- with a model only its tasks. Reads every row.
select task.key, draft.name, task.remote_id, task.submitted_at from task join draft on draft.task_id = task.id
  where provider = :provider and operation in (select value from json_each(:operations)) and doubts > 0
    and (adopted = 0 or doubts > 1) and remote_id is not null and submitted_at between :since and :until
    and (:model = '' or task.model = :model)
  order by submitted_at desc, task.id limit :limit

-- name: bought_after_refusal
-- Return the latest tasks of an operation that were refused between two times, and then bought, or that failed with a code.
-- Reads every row.
select task.key, draft.name, task.remote_id, task.submitted_at from task join draft on draft.task_id = task.id
  where provider = :provider and operation = :operation and submitted_at between :since and :until
    and (throttles > 0 and remote_id is not null or state = 'failed' and remote_id is null and code = :code)
  order by submitted_at desc, task.id limit :limit

-- name: submit_outlook
-- Return whether a task is being submitted, whether one waits to be bought, and whether one of those could be: within the
-- window, and without a duplicate in doubt.
select exists (select 1 from task where provider = :provider and state = 'submitting'),
    exists (select 1 from task where provider = :provider and state = 'queued' and due_at < 253402300800.0),
    exists (select 1 from task where provider = :provider and state = 'queued' and due_at < 253402300800.0
      and slots <= :free_slots
      and not (fingerprint <> '' and exists (
        select 1 from task as duplicate where duplicate.fingerprint = task.fingerprint and duplicate.fingerprint <> ''
          and duplicate.state = 'in_doubt')))

-- name: put_echoed_field
-- Store whether a request field was returned unchanged; once it was changed, that stays.
insert into echo (provider, model, field, verbatim) values (:provider, :model, :field, :verbatim)
  on conflict (provider, model, field) do update set verbatim = min(verbatim, excluded.verbatim)

-- name: echoed_fields
-- Return which request fields of a model are returned unchanged.
select field, verbatim from echo where provider = :provider and model = :model

-- name: results_page
-- Return the next tasks of the manifest, in its order.
select task.*, draft.position, draft.repeat, draft.vars, draft.request, draft.name, draft.queued_at,
    (select json_group_array(json_object('number', number, 'file', file, 'bytes', bytes, 'sha256', sha256, 'media_type', media_type))
       from (select * from output where output.task_id = task.id order by number)) as outputs
  from draft indexed by draft_position cross join task on task.id = draft.task_id
  where draft.position >= :position and (draft.position, draft.task_id) > (:position, :id)
  order by draft.position, draft.task_id limit :limit

-- name: keys_at
-- Return keys and variables of the tasks at some positions in the manifest.
select draft.position, task.key, draft.vars from draft join task on task.id = draft.task_id
  where draft.position in (select value from json_each(:positions))

-- name: outputs_of_keys
-- Return the files of finished tasks with some keys, in order.
select task.key, output.number, output.file, output.sha256 from task join output on output.task_id = task.id
  where task.key in (select value from json_each(:keys)) and task.state = 'done' and output.file is not null
  order by task.id, output.number

-- name: removed_page
-- Return the next tasks that were removed from the manifest.
select task.*, draft.position, draft.repeat, draft.vars, draft.request, draft.name, draft.queued_at,
    (select json_group_array(json_object('number', number, 'file', file, 'bytes', bytes, 'sha256', sha256, 'media_type', media_type))
       from (select * from output where output.task_id = task.id order by number)) as outputs
  from draft indexed by draft_position cross join task on task.id = draft.task_id
  where draft.position is null and draft.task_id > :id order by draft.task_id limit :limit

-- name: manifest_values
-- Return variables and request of every task of the manifest, in its order, with the task's state.
select vars, request, (select state from task where id = task_id) as state
  from draft indexed by draft_position where position is not null order by position, task_id

-- name: removed_values
-- Return variables and request of every task that was removed from the manifest, with the task's state.
select vars, request, (select state from task where id = task_id) as state
  from draft indexed by draft_position where position is null order by task_id

-- name: results_state
-- Return the mark of the results written last, how often drafts were added, how many tasks there are, how many have
-- changed, and a mark for new results.
select results, arrangement, (select coalesce(sum(count), 0) from tally), (select count(*) from changed),
    lower(hex(randomblob(16)))
  from job where id = 1

-- name: take_changes
-- Take every change into the results that are written now.
update changed set taken = 1 where taken = 0

-- name: taken_changes
-- Return the tasks whose changes were taken.
select task_id from changed where taken = 1 order by task_id limit :limit

-- name: set_results
-- Store the mark of the results that were written.
update job set results = :mark where id = 1

-- name: forget_changes
-- Forget the changes that were written, but for tasks that have changed once more.
delete from changed where taken = 1

-- name: result_ids
-- Return the id of every task in manifest order, or only of those in a state.
select task.id from draft join task on task.id = draft.task_id where :state is null or task.state = :state
  order by draft.position is null, draft.position, task.id

-- name: results_of
-- Return the tasks whose ids a JSON list holds, as `results_page` does.
select task.*, draft.position, draft.repeat, draft.vars, draft.request, draft.name, draft.queued_at,
    (select json_group_array(json_object('number', number, 'file', file, 'bytes', bytes, 'sha256', sha256, 'media_type', media_type))
       from (select * from output where output.task_id = task.id order by number)) as outputs
  from json_each(:ids) join task on task.id = json_each.value join draft on draft.task_id = task.id
  order by draft.position is null, draft.position, task.id

-- name: removed_sent
-- Return the number of bought tasks removed from the manifest.
select count(*) from draft join task on task.id = draft.task_id where draft.position is null and task.state <> 'queued'

-- name: removed_failed
-- Return the number of failed tasks removed from the manifest.
select count(*) from draft join task on task.id = draft.task_id where draft.position is null and task.state = 'failed'

-- name: newest_results
-- Return the newest tasks, as `results_page` does: those that ended last and those at work, then those to be bought next.
select task.*, draft.position, draft.repeat, draft.vars, draft.request, draft.name, draft.queued_at,
    (select json_group_array(json_object('number', number, 'file', file, 'bytes', bytes, 'sha256', sha256, 'media_type', media_type))
       from (select * from output where output.task_id = task.id order by number)) as outputs
  from (select id as newest from (
    select id, coalesce(finished_at, submitted_at, 0) as at from task indexed by task_state
      where state in ('submitting', 'in_doubt', 'held', 'running', 'ready', 'stranded')
    union all select * from (select id, coalesce(finished_at, submitted_at, 0) as at from task indexed by task_ended
      where state = 'done' and (finished_at is not null or state = 'done') order by finished_at desc, id desc limit :limit)
    union all select * from (select id, coalesce(finished_at, submitted_at, 0) as at from task indexed by task_ended
      where state = 'failed' and (finished_at is not null or state = 'done') order by finished_at desc, id desc limit :limit)
    union all select * from (select id, -1.0 as at from task indexed by task_state where state = 'queued'
      order by provider, due_at, id limit :limit)
    ) order by at desc, id limit :limit)
    join task on task.id = newest join draft on draft.task_id = task.id
  order by draft.position is null, draft.position, task.id

-- name: latest_files
-- Return the files saved last.
select task.key, output.file, output.media_type, task.finished_at
  from task indexed by task_ended cross join output on output.task_id = task.id
  where state = 'done' and (finished_at is not null or state = 'done') and file is not null
  order by finished_at desc, task.id desc, number limit :limit

-- name: oldest_submitted
-- Return when the oldest task that is running or ready was submitted.
select min(submitted_at) from task where state in ('running', 'ready')

-- name: oldest_ready
-- Return since when the oldest result waits to be downloaded, whose links will expire.
select min(finished_at) from task where state = 'ready'

-- name: error_groups
-- Return why tasks failed, grouped: how many, how many of them cost something, how much, and how many at an unknown price.
-- Failed tasks removed from the manifest were given up by the user who changed it, and are left out.
select state, coalesce(reason, ''), min(coalesce(message, '')), count(*), sum(spent > 0), sum(spent),
    sum(remote_id is not null and cost is null)
  from (select * from task indexed by task_state where state in ('failed', 'stranded', 'held')
      and not (state = 'failed' and exists (select 1 from draft where task_id = task.id and position is null))
    union all select * from task indexed by task_faults where state = 'done' and reason is not null)
  group by state, reason order by count(*) desc limit 20

-- name: example_names
-- Return the names of a few tasks of such a group.
select draft.name
  from (select id from task indexed by task_faults where state = :state and reason = :reason
    union all select id from task indexed by task_state where state = :state and reason is null and :reason is null) as lost
  join draft on draft.task_id = lost.id
  where not (:state = 'failed' and position is null) limit :limit

-- name: costs
-- Return what the job has cost, and how many tasks were sent at an unknown price.
select spent, unpriced from job where id = 1

-- name: remembered
-- Return the tasks that were ever bought, as the account remembers them.
select task.id, key, goods, state, ref, remote_id, coalesce(submitted_at, finished_at, draft.queued_at) as at,
    case when cost is null then null else spent end as cost, reason, message, evidence like 'bought in %' as linked,
    (select json_group_array(json_object('number', number, 'file', file, 'bytes', bytes, 'sha256', sha256, 'media_type', media_type))
       from (select * from output where output.task_id = task.id and file is not null order by number)) as outputs
  from task join draft on draft.task_id = task.id
  where provider = :provider and state <> 'queued' and task.id > :after order by task.id limit :limit

-- name: remembered_of
-- Return the tasks with these references, as the account remembers them, in any state: a purchase may turn out to be none.
select task.id, key, goods, state, ref, remote_id, coalesce(submitted_at, finished_at, draft.queued_at) as at,
    case when cost is null then null else spent end as cost, reason, message, evidence like 'bought in %' as linked,
    (select json_group_array(json_object('number', number, 'file', file, 'bytes', bytes, 'sha256', sha256, 'media_type', media_type))
       from (select * from output where output.task_id = task.id and file is not null order by number)) as outputs
  from task join draft on draft.task_id = task.id
  where provider = :provider and ref in (select value from json_each(:refs))

-- name: states_by_key
-- Return every task's key and state, where linked tasks may count as still to be bought.
select key, iif(:buy_again and state in ('done', 'stranded') and evidence like 'bought in %', 'queued', state) from task

-- name: count_partial
-- Return the number of done tasks with fewer outputs than were ordered.
select count(*) from task where state = 'done' and reason is not null
