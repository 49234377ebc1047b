-- 95 reads by key for five updates by key, each a statement alone. The tables and the prepared
-- statements are those of sysbench's own oltp_common.lua.
require("oltp_common")

function prepare_statements()
   prepare_point_selects()
   prepare_non_index_updates()
end

function event()
   if sysbench.rand.uniform(1, 100) <= 95 then
      execute_point_selects()
   else
      execute_non_index_updates()
   end
end
